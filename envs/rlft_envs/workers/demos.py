"""Worker processes that record demonstrations: started, fed, watched, restarted."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType

from rlft.types import AttemptRecord, DemoAttempt, DemoSource, EnvSettings
from rlft_envs.errors import WorkerError
from rlft_envs.record import SIMULATOR_ERROR, RecordSettings
from rlft_envs.workers.link import WorkerFaultError, WorkerLink

log = logging.getLogger(__name__)

TRIES_PER_ATTEMPT = 2  # an attempt that ends two workers is given up


class DemoPool:
    """Workers of one environment each that make attempts, in any order.

    Use as a context manager; leaving it ends every process.

    Args:
        settings: what the simulator is told.
        record: how attempts are recorded.
        size: processes.
        part: attempt number -> the file that its episode goes to (see :meth:`rlft_envs.record.DemoRecording.save`).

    Attributes:
        source: who demonstrates where; None until the first worker stands.

    Raises:
        EnvSetupError: the settings cannot be sent to a process.
    """

    def __init__(self, settings: EnvSettings, record: RecordSettings, size: int, part: Callable[[int], Path]) -> None:
        self.source: DemoSource | None = None
        self._links = [WorkerLink(i, settings, [0], demos=record) for i in range(size)]
        self._owed: dict[WorkerLink, DemoAttempt | None] = {}  # None: it is starting
        self._again: list[DemoAttempt] = []
        self._tries: Counter[int] = Counter()
        self._failed_starts, self._max_restarts = 0, settings.max_restarts
        self._part = part

    def __enter__(self) -> DemoPool:
        for link in self._links:
            self._start(link)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for link in self._links:
            if link in self._owed:
                link.kill()  # it would not listen to a polite word before it is done
            link.close()

    def run(self, next_attempt: Callable[[int], DemoAttempt | None]) -> Iterator[AttemptRecord]:
        """Work until ``next_attempt`` has nothing more and every attempt is answered.

        Args:
            next_attempt: called with the number of attempts under way; gives the next one, or None for now.

        Yields:
            every outcome, in the order in which they come; the episode is in its file by then.

        Raises:
            EnvSetupError: the settings allow no attempt.
            WorkerError: workers keep dying before they stand.
        """
        while True:
            for link in [link for link in self._links if link not in self._owed]:
                under_way = sum(attempt is not None for attempt in self._owed.values()) + len(self._again)
                attempt = self._again.pop() if self._again else next_attempt(under_way)
                if attempt is not None:
                    yield from self._give(link, attempt)
            if len(self._owed) < len(self._links) and not any(self._owed.values()):
                return  # a worker that could go on was given nothing, and none is under way
            yield from self._listen()

    def _start(self, link: WorkerLink) -> None:
        link.start()
        self._owed[link] = None

    def _give(self, link: WorkerLink, attempt: DemoAttempt) -> Iterator[AttemptRecord]:
        message = {"op": "demonstrate", "attempt": dataclasses.asdict(attempt), "file": str(self._part(attempt.number))}
        try:
            link.send(message)
            self._owed[link] = attempt
        except WorkerFaultError as fault:
            yield from self._replace(link, attempt, fault)

    def _listen(self) -> Iterator[AttemptRecord]:
        """Wait for the first answers, or until one is overdue."""
        patience = min(link.deadline for link in self._owed) - time.monotonic()
        connections = [link.connection for link in self._owed if link.connection is not None]
        readable = wait(connections, max(0.0, patience))
        now = time.monotonic()
        for link in [link for link in self._owed if link.connection in readable or link.deadline <= now]:
            attempt = self._owed.pop(link)
            try:
                if attempt is None:
                    link.wait_ready()
                    self.source = link.source
                    continue
                found = AttemptRecord(**link.receive()[0])
            except WorkerFaultError as fault:
                yield from self._replace(link, attempt, fault)
                continue
            if found.outcome == SIMULATOR_ERROR:
                log.warning("worker %d: %s", link.index, link.output())
            yield found

    def _replace(
        self, link: WorkerLink, attempt: DemoAttempt | None, fault: WorkerFaultError
    ) -> Iterator[AttemptRecord]:
        """Start a lost worker again; its attempt is made once more, then given up."""
        where = "while starting" if attempt is None else f"in attempt {attempt.number}, seed {attempt.seed}"
        log.warning("worker %d %s %s\n%s", link.index, fault.how, where, fault.details)
        link.kill()
        self._failed_starts += attempt is None
        if self._failed_starts > self._max_restarts:
            raise WorkerError(f"workers do not start; the last one {fault.how}\n{fault.details}".rstrip()) from None
        self._start(link)
        if attempt is None:
            return
        self._tries[attempt.number] += 1
        if self._tries[attempt.number] < TRIES_PER_ATTEMPT:
            self._again.append(attempt)
            return
        why = f"a worker {fault.how}, twice"
        yield AttemptRecord(attempt.number, attempt.seed, SIMULATOR_ERROR, 0, None, 0.0, why)
