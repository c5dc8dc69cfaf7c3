"""What every stage shares: the run directory, held by one process, and the command on record."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rlft.config.load import dump
from rlft.config.schema import RunConfig
from rlft.errors import RlftError, require_extra
from rlft.files import write_text_atomically
from rlft.run.assembly.learner import run_dir
from rlft.run.provenance import record_command

FREE_BYTES = 64 * 2**20  # a run that is about to fill its disk does not start


@contextmanager
def stage(cfg: RunConfig, name: str) -> Iterator[Path]:
    """The run directory, held by this process, with the command on record; errors as of :func:`run_lock`."""
    if cfg.wandb is not None and name in ("sft", "rl"):
        require_extra("wandb", "wandb")
    run = run_dir(cfg)
    with run_lock(run):
        record_command(run, name)
        label = f"eval_{cfg.eval.label}" if name == "eval" else name
        write_text_atomically(run / "settings" / f"{label}.yaml", dump(cfg))
        yield run


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
