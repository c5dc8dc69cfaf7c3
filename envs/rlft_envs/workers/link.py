"""The learner's end of one worker: start it, talk to it with a time limit, and say how it died.

A message is a dictionary that names an operation and its arguments, one per chunk and worker; its answer is what came
of it (``answer``, ``setup`` or ``fault``), and the value or text. Numbers of a chunk lie in shared memory.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from rlft.types import EnvSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.record import RecordSettings
from rlft_envs.slots import EnvSlots, Ready

START_TIMEOUT_S = 600.0  # a first start compiles byte code and fills shader caches, on a busy machine
CLOSE_TIMEOUT_S = 5.0
DUMP_TIMEOUT_S = 1.0
STDERR_TAIL = 4000  # characters quoted from a dead worker


class WorkerFaultError(Exception):
    """A worker died, hung or raised."""

    def __init__(self, how: str, details: str = "") -> None:
        super().__init__(f"{how}\n{details}")
        self.how = how  # what happened, in a few words
        self.details = details  # the traceback or the worker's last output; may be empty


def worker_environment() -> dict[str, str]:
    """Environment variables of a worker.

    It imports what this process can import, in the same order: a package of the user's own is found there as it is
    here, wherever the worker is started.
    """
    return {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),  # "" is the working directory
        "PYTHONSAFEPATH": "1",  # -m would put the working directory first, which need not be on our own path
        "MS_SKIP_ASSET_DOWNLOAD_PROMPT": "1",  # nobody could answer
    }


class WorkerLink:
    """One worker process and its :class:`EnvSlots`, which say what the arguments mean."""

    def __init__(
        self,
        index: int,
        settings: EnvSettings,
        env_ids: Sequence[int],
        memory: int | None = None,
        demos: RecordSettings | None = None,
    ) -> None:
        self.index, self.env_ids = index, list(env_ids)
        self.ready: Ready | None = None  # what it said when its environments were built; None before
        self.restarts = 0  # how often it was restarted
        self.recorded: list[int] = []  # slots whose frames it keeps, after a restart too
        self.deadline = self._limit = 0.0  # time.monotonic() after which it counts as hung if it owes an answer
        self.connection: Connection | None = None  # readable when an answer is there
        try:
            pickle.dumps(settings)
        except Exception as error:  # a TypeError, AttributeError or PicklingError, according to what it is
            what = f"env.make_kwargs = {settings.make_kwargs!r} cannot be sent to a worker process: {error}"
            raise EnvSetupError(f"{what}; use numbers, texts, lists and mappings, or sim.num_workers=0") from None
        self._hello = {"settings": settings, "env_ids": self.env_ids, "memory": memory, "demos": demos}
        self._memory, self._timeout = memory, settings.step_timeout_s
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start the process, in place of one that may still run; it builds while the caller goes on."""
        self.kill()
        self.connection, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-m", "rlft_envs.workers", str(theirs.fileno())]
            kept, env = [theirs.fileno(), *([] if self._memory is None else [self._memory])], worker_environment()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=self._stderr, stderr=self._stderr, pass_fds=kept, env=env
            )
        self._expect_within(START_TIMEOUT_S)
        self.send({**self._hello, "recorded": self.recorded})

    def send(self, message: Mapping[str, Any]) -> None:
        """Ask for an operation; the answer is due ``step_timeout_s`` after now, or after the worker is ready."""
        assert self.connection is not None
        if self.ready is not None:
            self._expect_within(self._timeout)
        with suppress(OSError):  # it is dead; whoever waits for the answer is told
            self.connection.send(message)

    def wait_ready(self) -> Ready:
        """Wait until the environments are built; what the worker then says. Errors as of :meth:`receive`."""
        if self.ready is None:
            self.ready = self._receive()
            self._expect_within(self._timeout)
        return self.ready

    def receive(self) -> Any:
        """The answer to the last message.

        Raises:
            EnvSetupError: the settings cannot be used; no other seed and no other process would help.
            WorkerFaultError: no answer came.
        """
        self.wait_ready()
        return self._receive()

    def output(self) -> str:
        """The end of what the worker wrote on its standard error."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace").strip()[-STDERR_TAIL:]

    def close(self) -> None:
        """End the process, politely first; may be called twice."""
        if self.connection is not None:
            with suppress(OSError):  # already gone
                self.connection.send({"op": "close"})
                self._wait(CLOSE_TIMEOUT_S)
        self.kill()
        self._stderr.close()

    def kill(self) -> None:
        """End the process at once."""
        self.ready = None
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _expect_within(self, seconds: float) -> None:
        self._limit, self.deadline = seconds, time.monotonic() + seconds

    def _receive(self) -> Any:
        assert self.connection is not None
        try:
            if not self.connection.poll(max(0.0, self.deadline - time.monotonic())):
                assert self._process is not None
                self._process.send_signal(signal.SIGUSR1)  # its fault handler prints where it is
                time.sleep(DUMP_TIMEOUT_S)
                raise WorkerFaultError(f"hung (no answer within {self._limit:g} s)", self.output())
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if kind == "setup":
            raise EnvSetupError(value)
        if kind == "fault":
            raise WorkerFaultError("raised", value.rstrip())
        return value

    def _death(self) -> WorkerFaultError:
        status, how = self._wait(CLOSE_TIMEOUT_S), "closed its connection"
        if status is not None:
            how = f"signal {-status}, {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            how = f"died ({how})"
        return WorkerFaultError(how, self.output())

    def _wait(self, seconds: float) -> int | None:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None


class LocalLink(EnvSlots):
    """The same without a process: what an operation raises is raised here."""

    index = 0
    recorded: Sequence[int] = ()
    _message: Mapping[str, Any]

    def wait_ready(self) -> Ready:
        """What is to be known about the environments."""
        return self.ready

    def send(self, message: Mapping[str, Any]) -> None:
        """Ask for an operation."""
        self._message = message

    def receive(self) -> Any:
        """Execute it."""
        arguments = dict(self._message)
        return getattr(self, arguments.pop("op"))(**arguments)
