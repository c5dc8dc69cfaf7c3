"""The worker processes of a collection: started, fed, watched, restarted."""

from __future__ import annotations

import logging
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Self

from rlft.errors import RlftError
from rlft.types import DemoAttempt, DemoRecording, DemoSource, EnvSettings

log = logging.getLogger(__name__)

WORKER = "rlft_tasks.planners.worker"
START_TIMEOUT_S = 180.0  # importing the simulator and building one environment on a loaded machine
TRIES_PER_ATTEMPT = 2  # an attempt that ends two workers is given up


class CollectError(RlftError):
    """Demonstrations cannot be collected."""


class _Worker:
    """One process and the attempt that it is busy with."""

    def __init__(self, settings: EnvSettings, how: Mapping[str, Any]) -> None:
        # Started anew, never forked: a forked simulator hangs.
        self.connection, theirs = multiprocessing.Pipe()
        with theirs:
            descriptor = theirs.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-m", WORKER, str(descriptor)], pass_fds=[descriptor], stdin=subprocess.DEVNULL
            )
        self.connection.send((settings, dict(how)))
        self.ready = False
        self.attempt: DemoAttempt | None = None
        self.deadline = time.monotonic() + START_TIMEOUT_S

    def give(self, attempt: DemoAttempt, timeout_s: float) -> None:
        self.connection.send(attempt)
        self.attempt, self.deadline = attempt, time.monotonic() + timeout_s

    def stop(self) -> None:
        """End the process; its end of the stream tells it to, a signal makes it."""
        self.connection.close()
        try:
            self.process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Crew:
    """Workers that make attempts, in any order.

    Use as a context manager; leaving it ends every process.

    Args:
        settings: what the simulator is told.
        how: how attempts are recorded (hold_steps, action_noise, max_steps).
        size: processes.

    Attributes:
        source: who demonstrates where; None until the first worker stands.
    """

    def __init__(self, settings: EnvSettings, how: Mapping[str, Any], size: int) -> None:
        self._settings, self._how, self._size = settings, how, size
        self._workers: list[_Worker] = []
        self._retries: list[DemoAttempt] = []
        self._tries: dict[int, int] = {}
        self._restarts = 0
        self.source: DemoSource | None = None

    def __enter__(self) -> Self:
        self._workers = [_Worker(self._settings, self._how) for _ in range(self._size)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers = []

    def run(
        self, next_attempt: Callable[[int], DemoAttempt | None], on_recording: Callable[[DemoRecording], None]
    ) -> None:
        """Work until ``next_attempt`` has nothing more and every attempt is answered.

        Args:
            next_attempt: called with the number of attempts under way; gives the next one, or None for now.
            on_recording: called with every outcome, in the order in which they come.

        Raises:
            CollectError: the settings allow no attempt, or workers keep dying before they stand.
        """
        while True:
            self._feed(next_attempt)
            busy = [w for w in self._workers if w.attempt is not None or not w.ready]
            idle = [w for w in self._workers if w.ready and w.attempt is None]
            if idle and not any(w.attempt for w in self._workers):
                return  # a worker that could go on was given nothing, and none is under way
            patience = max(0.0, min(w.deadline for w in busy) - time.monotonic())
            talking = wait([w.connection for w in busy], timeout=patience)
            for worker in [w for w in busy if w.connection in talking]:
                self._listen(worker, on_recording)
            for worker in [w for w in busy if w in self._workers and time.monotonic() > w.deadline]:
                worker.process.kill()
                self._replace(worker, f"was silent for {self._settings.step_timeout_s:.0f} s", on_recording)

    def _feed(self, next_attempt: Callable[[int], DemoAttempt | None]) -> None:
        for worker in self._workers:
            if not worker.ready or worker.attempt is not None:
                continue
            under_way = sum(w.attempt is not None for w in self._workers) + len(self._retries)
            attempt = self._retries.pop() if self._retries else next_attempt(under_way)
            if attempt is not None:
                worker.give(attempt, self._settings.step_timeout_s)

    def _listen(self, worker: _Worker, on_recording: Callable[[DemoRecording], None]) -> None:
        try:
            message = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            worker.process.wait()
            self._replace(worker, f"ended with status {worker.process.returncode}", on_recording)
            return
        if isinstance(message, str):
            raise CollectError(message)
        if isinstance(message, DemoSource):
            worker.ready, worker.deadline, self.source = True, float("inf"), message
            return
        worker.attempt, worker.deadline = None, float("inf")
        on_recording(message)

    def _replace(self, worker: _Worker, what: str, on_recording: Callable[[DemoRecording], None]) -> None:
        """Start a new worker in place of a lost one; its attempt is made once more, then given up."""
        attempt, standing = worker.attempt, worker.ready
        where = f" in attempt {attempt.number}, seed {attempt.seed}" if attempt else " while starting"
        log.warning("a collection worker %s%s", what, where)
        worker.stop()
        self._workers.remove(worker)
        self._restarts += not standing
        if self._restarts > self._settings.max_restarts:
            raise CollectError(f"collection workers do not start (the last one {what}); their own messages stand above")
        if attempt is not None:
            self._tries[attempt.number] = self._tries.get(attempt.number, 0) + 1
            if self._tries[attempt.number] < TRIES_PER_ATTEMPT:
                self._retries.append(attempt)
            else:
                on_recording(DemoRecording(attempt, "simulator_error", f"a worker {what}, twice"))
        self._workers.append(_Worker(self._settings, self._how))
