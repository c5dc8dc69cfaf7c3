"""Live progress: one line that is redrawn on a terminal, plain lines now and then elsewhere. Written to stderr."""

import shutil
import sys
import time
from contextlib import AbstractContextManager, suppress
from typing import TextIO

from tqdm import tqdm

REDRAW_S, PLAIN_S = 0.1, 10.0  # a terminal's line is redrawn, and a plain line appears, at most this often


class Progress(AbstractContextManager["Progress"]):
    """Progress of a stage, on stderr by default; as a context manager it says at the end how long that took."""

    def __init__(self, stage: str, stream: TextIO | None = None, plain_interval_s: float = PLAIN_S) -> None:
        self._stage, self._stream, self._started = stage, stream or sys.stderr, time.monotonic()
        self._live = self._stream.isatty()
        self._interval, self._shown_at = REDRAW_S if self._live else plain_interval_s, -float("inf")
        self._first: tuple[float, float] | None = None  # when the first report came, and how far it was

    def update(self, done: float, total: float, **figures: float | tuple[float, float]) -> None:
        """Say that ``done`` of ``total`` is done, with figures: ``*success`` in per cent, a pair as an interval."""
        now = time.monotonic()
        # The first report may come late (start-up) or after a resume: speed is counted from it.
        since, initial = self._first = self._first or (now, done)
        if now - self._shown_at < self._interval and done < total:
            return
        self._shown_at, width = now, shutil.get_terminal_size().columns - 1 if self._live else 0  # 0: without a bar
        shown = ", ".join(f"{name} {_figure(name, value)}" for name, value in figures.items())
        how = {"ascii": True, "initial": initial, "postfix": shown}
        text = tqdm.format_meter(done, total, now - since, width, self._stage, **how)
        self._write(f"\r\x1b[K{text}" if self._live else f"{text}\n")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the line."""
        if self._first is not None:
            outcome = "done" if kind is None else f"stopped by {kind.__name__}"
            taken = tqdm.format_interval(time.monotonic() - self._started)
            self._write("\n" * self._live + f"{self._stage}: {outcome} after {taken}\n")

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a closed stderr must not end hours of training
            self._stream.write(text)
            self._stream.flush()


def _figure(name: str, value: float | tuple[float, float]) -> str:
    if isinstance(value, tuple):
        return f"{100 * value[0]:.0f}-{100 * value[1]:.0f}%"
    if name.endswith("success"):
        return f"{100 * value:.1f}%"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
