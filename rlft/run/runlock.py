"""One process per run directory."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rlft.errors import RlftError

FREE_BYTES = 64 * 2**20  # a run that is about to fill its disk does not start


class RunInUseError(RlftError):
    """Another process holds the run directory."""

    exit_code = 2


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold a run directory, which is made where it is missing; the kernel lets go of it however the process ends.

    Raises:
        RunInUseError: another process holds it.
        RlftError: it cannot be made, written or locked, or its disk is almost full.
    """
    path = Path(run_dir) / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # filelock would fall back to a lock by the file's existence, which outlives a kill.
        held = FileLock(path, timeout=0, fallback_to_soft=False).acquire()
        path.write_text(f"{os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        free = shutil.disk_usage(path.parent).free
    except Timeout:
        holder = path.read_text(encoding="utf-8", errors="replace").strip() or "unknown"
        raise RunInUseError(
            f"{path.parent}: in use by process {holder}; wait, or give this run another name or output.dir"
        ) from None
    except OSError as error:
        reason = f"cannot be written or locked ({error.strerror}); choose another one"
        raise RlftError(f"output.dir = {path.parent}: {reason}") from error
    with held:
        if free < FREE_BYTES:
            few = f"only {free / 2**20:.0f} MiB free, {FREE_BYTES / 2**20:.0f} MiB are needed"
            raise RlftError(f"output.dir = {path.parent}: {few}; free some, or choose another output.dir")
        yield
