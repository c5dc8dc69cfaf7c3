"""One process per run directory."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from rlft.errors import RlftError


class RunLock:
    """Holds a run directory for this process; the kernel lets go of it however the process ends.

    Use as a context manager.

    Args:
        run_dir: made where it is missing.

    Raises:
        RlftError: on entering, where another process holds it, or where nothing can be written there.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = Path(run_dir) / ".lock"
        self._handle = -1

    def __enter__(self) -> Self:
        """Take the lock."""
        check_writable(self.path.parent)
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._handle)
            raise RlftError(
                f"{self.path.parent}: in use by process {holder}; wait, or give this run another name or output.dir"
            ) from None
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go. The file stays: removing it would let two processes lock two different files."""
        os.close(self._handle)


def check_writable(directory: Path, free_bytes: int = 64 * 2**20) -> None:
    """Make a directory and try to write in it, before hours of work depend on it.

    Args:
        directory: made where it is missing.
        free_bytes: how much room has to be left on its disk.

    Raises:
        RlftError: it cannot be made, cannot be written, or the disk is almost full.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(b"x")
            probe.flush()
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise RlftError(
            f"output.dir = {directory}: cannot be written ({error.strerror}); choose another one"
        ) from error
    if free < free_bytes:
        raise RlftError(
            f"output.dir = {directory}: only {free / 2**20:.0f} MiB free, {free_bytes / 2**20:.0f} MiB are needed; "
            "free some, or choose another output.dir"
        )
