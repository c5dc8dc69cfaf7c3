"""The learner's end of one worker process: start it, talk to it with a time limit, and say how it died."""

from __future__ import annotations

import dataclasses
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

from rlft.types import DemoSource, EnvSettings, EnvSpec
from rlft_envs.errors import EnvSetupError
from rlft_envs.record import RecordSettings
from rlft_envs.workers import protocol
from rlft_envs.workers.launch import worker_environment

START_TIMEOUT_S = 600.0  # a first start compiles byte code and fills shader caches, on a busy machine
CLOSE_TIMEOUT_S = 5.0
DUMP_TIMEOUT_S = 1.0
STDERR_TAIL = 4000  # characters quoted from a dead worker


class WorkerFaultError(Exception):
    """A worker died, hung or raised.

    Attributes:
        how: what happened, in a few words.
        details: the traceback or the worker's last output; may be empty.
    """

    def __init__(self, how: str, details: str = "") -> None:
        super().__init__(f"{how}\n{details}")
        self.how = how
        self.details = details


class WorkerLink:
    """One worker process.

    Args:
        index: the worker's number.
        settings: what its environments are built from.
        env_ids: which of the E environments it holds; they follow each other.
        memory: descriptor of the memory shared by all workers and the learner; None where no chunk is ever stepped.
        demos: how it records demonstrations; None where it records none.

    Attributes:
        restarts: how often it was restarted.
        recorded: slots (positions in ``env_ids``) whose frames it keeps, after a restart too.
        deadline: :func:`time.monotonic` time after which a worker that owes an answer counts as hung.
        connection: has something to read when an answer is there.
        spec: the facts about its environments, once it is ready.
        tasks: the environments' instructions when it became ready.
        source: who demonstrates in it, once it is ready; None where it records no demonstrations.
    """

    def __init__(
        self,
        index: int,
        settings: EnvSettings,
        env_ids: Sequence[int],
        memory: int | None = None,
        demos: RecordSettings | None = None,
    ) -> None:
        self.index = index
        self.env_ids = list(env_ids)
        self.restarts = 0
        self.recorded: set[int] = set()
        self.deadline = self._limit = 0.0
        self.connection: Connection | None = None
        self.spec: EnvSpec
        self.tasks: list[str]
        self.source: DemoSource | None = None
        self._hello = {
            "settings": protocol.pack_settings(settings),
            "env_ids": self.env_ids,
            "memory": memory,
            "demos": None if demos is None else dataclasses.asdict(demos),
        }
        self._memory = memory
        self._timeout = settings.step_timeout_s
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        self._process: subprocess.Popen | None = None
        self._ready = False

    def start(self) -> None:
        """Start the process; it builds its environments while the caller goes on."""
        self.connection, theirs = Pipe()
        self._ready = False
        with theirs:
            shared = [] if self._memory is None else [self._memory]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rlft_envs.workers", str(theirs.fileno())],
                pass_fds=(theirs.fileno(), *shared),
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                env=worker_environment(),
            )
        with suppress(WorkerFaultError):  # dead already: whoever waits for it is told
            self._send({**self._hello, "recorded": sorted(self.recorded)}, START_TIMEOUT_S)

    def wait_ready(self) -> None:
        """Wait until the environments are built.

        Raises:
            EnvSetupError: the settings cannot be built; starting again would not help.
            WorkerFaultError: the worker failed while starting.
        """
        if self._ready:
            return
        message, _ = self.receive()
        self.spec, self.tasks = protocol.unpack_spec(message["spec"]), message["tasks"]
        if "source" in message:
            frozen = tuple(message["source"].pop("frozen_action_dims"))
            self.source = DemoSource(self.spec, **message["source"], frozen_action_dims=frozen)
        self._ready = True

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message, after waiting until the worker is ready; its answer is due within ``step_timeout_s``.

        Raises:
            WorkerFaultError: it is dead, or did not become ready.
        """
        self.wait_ready()
        self._send(message, self._timeout)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The answer to the last message, and its raw bytes.

        Raises:
            EnvSetupError: the settings cannot be used; no other seed and no other process would help.
            WorkerFaultError: no answer came.
        """
        assert self.connection is not None
        try:
            if not self.connection.poll(max(0.0, self.deadline - time.monotonic())):
                raise self._hang()
            message, payload = protocol.receive(self.connection)
        except (EOFError, OSError):
            raise self._death() from None
        if "error" not in message:
            return message, payload
        if message["kind"] == "setup":
            raise EnvSetupError(message["error"])
        raise WorkerFaultError("raised", message["error"].rstrip())

    def close(self) -> None:
        """End the process, politely first, and free what it took; may be called twice."""
        if self.connection is not None:
            try:
                protocol.send(self.connection, {"op": "close"})
                self._wait(CLOSE_TIMEOUT_S)
            except OSError:
                pass  # already gone
        self.kill()
        self._stderr.close()

    def kill(self) -> None:
        """End the process at once."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def output(self) -> str:
        """The end of what the worker wrote on its standard error."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace").strip()[-STDERR_TAIL:]

    def _send(self, message: Mapping[str, Any], limit: float) -> None:
        assert self.connection is not None
        try:
            protocol.send(self.connection, message)
        except OSError:
            raise self._death() from None
        self._limit, self.deadline = limit, time.monotonic() + limit

    def _hang(self) -> WorkerFaultError:
        """Ask the worker where it is (its fault handler prints the stack), then describe it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)
        time.sleep(DUMP_TIMEOUT_S)
        return WorkerFaultError(f"hung (no answer within {self._limit:g} s)", self.output())

    def _death(self) -> WorkerFaultError:
        status = self._wait(CLOSE_TIMEOUT_S)
        if status is None:
            how = "closed its connection"
        elif status < 0:
            how = f"died (signal {-status}, {signal.Signals(-status).name})"
        else:
            how = f"died (exit status {status})"
        return WorkerFaultError(how, self.output())

    def _wait(self, seconds: float) -> int | None:
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
