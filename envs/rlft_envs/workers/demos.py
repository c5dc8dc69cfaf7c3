"""Worker processes that record demonstrations: started, fed, watched, restarted."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

from rlft.types import AttemptRecord, DemoAttempt, DemoSource, EnvSettings
from rlft_envs.errors import WorkerError
from rlft_envs.record import SIMULATOR_ERROR, RecordSettings
from rlft_envs.workers.link import WorkerFaultError, WorkerLink

log = logging.getLogger(__name__)

TRIES_PER_ATTEMPT = 2  # an attempt that ends two workers is given up


class DemoPool:
    """Workers of one environment each that make attempts, in any order; leaving the context ends every process.

    ``size`` counts processes; ``part`` gives the file that an attempt's episode goes to, from its number
    (see :meth:`rlft_envs.record.DemoRecording.save`).
    """

    def __init__(self, settings: EnvSettings, record: RecordSettings, size: int, part: Callable[[int], Path]) -> None:
        self._links = [WorkerLink(i, settings, [0], demos=record) for i in range(size)]
        self._owed: dict[WorkerLink, DemoAttempt] = {}
        self._tries: Counter[int] = Counter()
        self._max_restarts, self._part = settings.max_restarts, part

    def __enter__(self) -> "DemoPool":
        for link in self._links:
            link.start()
        return self

    def __exit__(self, *error: object) -> None:
        for link in self._links:
            if link in self._owed or link.ready is None:
                link.kill()  # it would not listen to a polite word before it is done
            link.close()

    def source(self) -> DemoSource:
        """Who demonstrates where; waits for the first worker. Errors as of :meth:`run`."""
        while True:
            try:
                source = self._links[0].wait_ready().source
                assert source is not None  # it was asked for demonstrations
                return source
            except WorkerFaultError as fault:
                self._restart(self._links[0], fault, "while starting")

    def run(self, next_attempt: Callable[[int], DemoAttempt | None]) -> Iterator[AttemptRecord]:
        """Work until ``next_attempt`` has nothing more and every attempt is answered.

        That is called with the number of attempts under way, and gives the next one, or None for now. Outcomes are
        yielded as they come; the episode is in its file by then.

        Raises:
            EnvSetupError: the settings allow no attempt.
            WorkerError: a worker dies again and again before it stands.
        """
        while True:
            for link in self._links:
                if link not in self._owed and (attempt := next_attempt(len(self._owed))) is not None:
                    self._ask(link, attempt)
            if not self._owed:
                return
            patience = min(link.deadline for link in self._owed) - time.monotonic()
            connections = [link.connection for link in self._owed if link.connection is not None]
            readable, now = wait(connections, max(0.0, patience)), time.monotonic()
            for link in [link for link in self._owed if link.connection in readable or link.deadline <= now]:
                if (found := self._listen(link)) is not None:
                    del self._owed[link]
                    yield found

    def _ask(self, link: WorkerLink, attempt: DemoAttempt) -> None:
        self._owed[link] = attempt
        link.send({"op": "demonstrate", "attempt": attempt, "file": self._part(attempt.number)})

    def _listen(self, link: WorkerLink) -> AttemptRecord | None:
        """What came of the attempt that a worker owes; None where it is only ready for it, or makes it once more."""
        attempt = self._owed[link]
        starting = link.ready is None
        try:
            if starting:
                link.wait_ready()
                return None
            found: AttemptRecord = link.receive()
        except WorkerFaultError as fault:
            self._restart(link, fault, f"in attempt {attempt.number}, seed {attempt.seed}")
            self._tries[attempt.number] += not starting
            if self._tries[attempt.number] < TRIES_PER_ATTEMPT:
                self._ask(link, attempt)
                return None
            why = f"a worker {fault.how}, twice"
            return AttemptRecord(attempt.number, attempt.seed, SIMULATOR_ERROR, 0, None, 0.0, why)
        if found.outcome == SIMULATOR_ERROR:
            log.warning("worker %d: %s", link.index, link.output())
        return found

    def _restart(self, link: WorkerLink, fault: WorkerFaultError, where: str) -> None:
        """Start a lost worker again; one that stood before it was lost may be lost as often as attempts allow."""
        log.warning("worker %d %s %s\n%s", link.index, fault.how, where, fault.details)
        link.restarts = link.restarts + 1 if link.ready is None else 0
        if link.restarts > self._max_restarts:
            raise WorkerError(f"workers do not start; the last one {fault.how}\n{fault.details}".rstrip()) from None
        link.start()
