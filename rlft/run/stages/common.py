"""What every stage shares: the run directory held, and the command on record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlft.config.load import dump
from rlft.config.schema import RunConfig
from rlft.errors import require_extra
from rlft.files import write_text_atomically
from rlft.run.provenance import record_command
from rlft.run.assembly.envs import simulator_errors
from rlft.run.assembly.learner import run_dir
from rlft.run.runlock import run_lock


@contextmanager
def stage(cfg: RunConfig, name: str) -> Iterator[Path]:
    """The run directory, held by this process, with the command on record."""
    if cfg.wandb is not None and name in ("sft", "rl"):
        require_extra("wandb", "wandb")
    run = run_dir(cfg)
    with run_lock(run), simulator_errors():
        record_command(run, name)
        (run / "settings").mkdir(exist_ok=True)
        label = f"eval_{cfg.eval.label}" if name == "eval" else name
        write_text_atomically(run / "settings" / f"{label}.yaml", dump(cfg))
        yield run
