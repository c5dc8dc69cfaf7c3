"""The learner's end of one worker process: start it, talk to it with a time limit, and say how it died."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import rlft
import rlft_envs
from rlft.types import EnvSettings, EnvSpec
from rlft_envs.arrays import ObservationArrays
from rlft_envs.errors import EnvSetupError
from rlft_envs.workers import protocol

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
    """One worker process and the memory shared with it.

    Attributes:
        index: the worker's number.
        env_ids: the environments it holds, as numbered in the whole pool.
        restarts: how often it was restarted.
        record: slots (positions in ``env_ids``) that a restarted worker goes on recording.
        spec: the facts about its environments, once it is ready.
        tasks: the environments' instructions when it became ready.
        rows: its observations, in shared memory, once it is ready.
    """

    def __init__(self, index: int, env_ids: Sequence[int], settings: EnvSettings) -> None:
        self.index = index
        self.env_ids = list(env_ids)
        self.restarts = 0
        self.record: set[int] = set()
        self.spec: EnvSpec
        self.tasks: list[str]
        self.rows: ObservationArrays
        self._settings = protocol.pack_settings(settings)
        self._timeout = settings.step_timeout_s
        # Anonymous memory by descriptor: unlike a named segment it cannot outlive a killed parent.
        self._memory = os.memfd_create(f"rlft-worker-{index}")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self._ready = False

    def start(self) -> None:
        """Start the process; it builds its environments while the caller goes on."""
        mine, theirs = Pipe()
        self._ready = False
        self._connection = mine
        with theirs:
            arguments = ["--connection", str(theirs.fileno()), "--memory", str(self._memory)]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rlft_envs.workers", *arguments],
                pass_fds=(theirs.fileno(), self._memory),
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                env=_environment(),
            )
        self._send({"settings": self._settings, "env_ids": self.env_ids, "record": sorted(self.record)})

    def wait_ready(self) -> None:
        """Wait until the environments are built.

        Raises:
            EnvSetupError: the settings cannot be built; starting again would not help.
            WorkerFaultError: the worker failed while starting.
        """
        if self._ready:
            return
        message = self._receive(time.monotonic() + START_TIMEOUT_S, "starting")
        self.spec = protocol.unpack_spec(message["spec"])
        self.tasks = message["tasks"]
        n = len(self.env_ids)
        size = ObservationArrays.nbytes(self.spec, n)
        self.rows = ObservationArrays.over(mmap.mmap(self._memory, size), self.spec, n)
        self._ready = True

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message, after waiting until the worker is ready.

        Raises:
            WorkerFaultError: it is dead, or did not become ready.
        """
        self.wait_ready()
        self._send(message)

    def receive(self, deadline: float) -> dict[str, Any]:
        """The answer to the last message.

        Args:
            deadline: :func:`time.monotonic` time after which the worker counts as hung.

        Raises:
            WorkerFaultError: no answer came.
        """
        return self._receive(deadline, "working")

    def receive_bytes(self, deadline: float) -> bytes:
        """The raw bytes that follow an answer; arguments and errors as of :meth:`receive`."""
        return self._read(deadline, "sending")

    def close(self) -> None:
        """End the process, politely first, and free everything; may be called twice."""
        if self._connection is not None:
            try:
                protocol.send(self._connection, {"op": "close"})
                self._wait(CLOSE_TIMEOUT_S)
            except OSError:
                pass  # already gone
        self.kill()
        if not self._stderr.closed:
            self._stderr.close()
            os.close(self._memory)

    def kill(self) -> None:
        """End the process at once."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._connection is not None
        try:
            protocol.send(self._connection, message)
        except OSError:
            raise self._death() from None

    def _read(self, deadline: float, doing: str) -> bytes:
        assert self._connection is not None
        try:
            if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                raise self._hang(doing)
            return self._connection.recv_bytes()
        except (EOFError, OSError):
            raise self._death() from None

    def _receive(self, deadline: float, doing: str) -> dict[str, Any]:
        message = protocol.parse(self._read(deadline, doing))
        if "error" not in message:
            return message
        if message["kind"] == "setup":
            raise EnvSetupError(message["error"])
        raise WorkerFaultError("raised", message["error"].rstrip())

    def _hang(self, doing: str) -> WorkerFaultError:
        """Ask the worker where it is (its fault handler prints the stack), then describe it."""
        assert self._process is not None
        limit = self._timeout if self._ready else START_TIMEOUT_S
        self._process.send_signal(signal.SIGUSR1)
        time.sleep(DUMP_TIMEOUT_S)
        return WorkerFaultError(f"hung (no answer within {limit:g} s, {doing})", self._tail())

    def _death(self) -> WorkerFaultError:
        status = self._wait(CLOSE_TIMEOUT_S)
        if status is None:
            how = "closed its connection"
        elif status < 0:
            how = f"died (signal {-status}, {signal.Signals(-status).name})"
        else:
            how = f"died (exit status {status})"
        return WorkerFaultError(how, self._tail())

    def _wait(self, seconds: float) -> int | None:
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def _tail(self) -> str:
        """The end of what the worker wrote on its standard error."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace").strip()[-STDERR_TAIL:]


def _environment() -> dict[str, str]:
    """A worker's environment: the packages are found from anywhere, one thread each, and nothing asks questions."""
    packages = [str(Path(path).resolve().parent) for module in (rlft, rlft_envs) for path in module.__path__]
    inherited = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    path = os.pathsep.join([*packages, *inherited])
    return {**os.environ, **threads, "PYTHONPATH": path, "MS_SKIP_ASSET_DOWNLOAD_PROMPT": "1"}
