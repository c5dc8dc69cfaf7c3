"""Live progress: one line that is redrawn on a terminal, plain lines now and then elsewhere. Written to stderr."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import Self, TextIO

REDRAW_S = 0.1  # a terminal line is redrawn at most this often
PLAIN_S = 10.0  # a plain line appears at most this often


class Progress:
    """Progress of one stage.

    Use as a context manager; leaving it ends the line and, when something was shown, says how long the stage took.

    Args:
        stage: what is running.
        stream: where to write; stderr by default.
        plain_interval_s: seconds between plain lines where the stream is no terminal.
        clock: seconds, monotonic.
    """

    def __init__(
        self, stage: str, stream: TextIO | None = None, plain_interval_s: float = PLAIN_S, clock: object = None
    ) -> None:
        self.stage = stage
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock if callable(clock) else time.monotonic
        self._live = self._stream.isatty()
        self._interval = REDRAW_S if self._live else plain_interval_s
        self._started = self._clock()
        self._first: tuple[float, float] | None = None
        self._shown_at = -float("inf")
        self._last_text = ""

    def update(self, done: float, total: float, **figures: float | tuple[float, float]) -> None:
        """Say how far the stage is.

        Args:
            done: units done, 0..total.
            total: units in all.
            figures: key figures to show; names ending in ``success`` are shown as per cent. A pair is an interval.
        """
        now = self._clock()
        if self._first is None:
            # The first report may come late (start-up) or after a resume: speed is counted from it.
            self._first = (now, done)
        self._last_text = self._text(now, done, total, figures)
        if now - self._shown_at >= self._interval or done >= total:
            self._shown_at = now
            self._show(self._last_text)

    def __enter__(self) -> Self:
        """Start the clock."""
        self._started = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the line."""
        if not self._last_text:
            return
        if self._live:
            self._write("\n")
        outcome = "done" if kind is None else f"stopped by {kind.__name__}"
        self._write(f"{self.stage}: {outcome} after {duration(self._clock() - self._started)}\n")

    def _text(self, now: float, done: float, total: float, figures: dict[str, float | tuple[float, float]]) -> str:
        share = done / total if total > 0 else 1.0
        parts = [f"{self.stage} {100 * share:3.0f}% {done:g}/{total:g}", duration(now - self._started)]
        eta = self._eta(now, done, total)
        if eta is not None:
            parts.append(f"{duration(eta)} left")
        parts += [f"{name} {_figure(name, value)}" for name, value in figures.items()]
        return " | ".join(parts)

    def _eta(self, now: float, done: float, total: float) -> float | None:
        assert self._first is not None
        first_time, first_done = self._first
        # With one report only, everything since the start has to serve as the measure.
        since, units = (now - first_time, done - first_done) if done > first_done else (now - self._started, done)
        return None if units <= 0 or done >= total else (total - done) * since / units

    def _show(self, text: str) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._write("\r\x1b[K" + text[:width])
        else:
            self._write(text + "\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # A closed stderr must not end hours of training.
            self._live, self._interval = False, float("inf")


def duration(seconds: float) -> str:
    """``42s``, ``3m05s`` or ``2h07m``."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def _figure(name: str, value: float | tuple[float, float]) -> str:
    if isinstance(value, tuple):
        return f"{100 * value[0]:.0f}-{100 * value[1]:.0f}%"
    if name.endswith("success"):
        return f"{100 * value:.1f}%"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
