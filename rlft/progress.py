"""Live progress: one line that is redrawn on a terminal, plain lines now and then elsewhere. Written to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

GONE = (OSError, ValueError)  # a closed stderr must not end hours of training


class Progress:
    """Progress of one stage; as a context manager it says at the end how long the stage took.

    Args:
        stage: what is running.
        stream: where to write; stderr by default.
        plain_interval_s: seconds between plain lines where the stream is no terminal.
    """

    def __init__(self, stage: str, stream: TextIO | None = None, plain_interval_s: float = 10.0) -> None:
        self._stage, self._stream, self._started = stage, stream or sys.stderr, time.monotonic()
        self._interval = plain_interval_s
        self._bar: tqdm | None = None

    def update(self, done: float, total: float, **figures: float | tuple[float, float]) -> None:
        """Say that ``done`` of ``total`` is done, with figures: ``*success`` in per cent, a pair as an interval."""
        with suppress(*GONE):
            first = self._bar is None
            self._bar = self._bar or _begin(self._stage, self._stream, done, self._interval)
            self._bar.total = total
            self._bar.set_postfix_str(", ".join(f"{k} {_figure(k, v)}" for k, v in figures.items()), refresh=False)
            if not self._bar.update(done - self._bar.n) and (first or done >= total):
                self._bar.refresh()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """End the line."""
        with suppress(*GONE):
            if self._bar is not None:
                self._bar.close()
                outcome = "done" if kind is None else f"stopped by {kind.__name__}"
                taken = tqdm.format_interval(time.monotonic() - self._started)
                self._stream.write(f"{self._stage}: {outcome} after {taken}\n")


class _Bar(tqdm):
    monitor_interval = 0  # no thread that watches bars: environments are forked while one is up


class _Lines(_Bar):
    sp: Callable[[str], object] | None

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], object]:
        """A line for every report: carriage returns would fill a log file."""
        return lambda text: (file.write(f"{text}\n"), file.flush())

    def close(self) -> None:
        """End without the last line, which has been shown."""
        self.sp = None
        super().close()


def _begin(stage: str, stream: TextIO, done: float, interval_s: float) -> tqdm:
    """A bar from the first report on, which may come late (start-up) or after a resume: speed counts from there."""
    how = {"desc": stage, "initial": done, "file": stream, "miniters": 0, "position": 0, "delay": 1e-9}
    return _Bar(**how, dynamic_ncols=True) if stream.isatty() else _Lines(**how, ncols=0, mininterval=interval_s)


def _figure(name: str, value: float | tuple[float, float]) -> str:
    if isinstance(value, tuple):
        return f"{100 * value[0]:.0f}-{100 * value[1]:.0f}%"
    if name.endswith("success"):
        return f"{100 * value:.1f}%"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
