"""Scalars of a run: always into metrics.jsonl, and into Weights & Biases where it is configured and works."""

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

from rlft.config.load import dump
from rlft.config.schema import RunConfig, WandbConfig
from rlft.files import write_text_atomically

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
RESERVED = {"time", "stage", "step"}


class Tracker(AbstractContextManager["Tracker"]):
    """Writes scalars; nothing that goes wrong with the remote part, a started wandb run, reaches the caller."""

    def __init__(self, run_dir: Path, remote: Any = None) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.path = run_dir / METRICS
        self._remote = remote
        self._mend()
        self._file = self.path.open("a", encoding="utf-8")

    @classmethod
    def open(cls, cfg: RunConfig, run_dir: Path) -> Self:
        """Write the resolved settings as config.yaml, and start tracking."""
        write_text_atomically(run_dir / "config.yaml", dump(cfg))
        remote = None
        if cfg.wandb is not None:
            with _going_on("start"):
                remote = start_wandb(cfg.wandb, cfg, run_dir)
        return cls(run_dir, remote)

    def log(self, stage: str, step: int, scalars: Mapping[str, float]) -> None:
        """Append one line; a value that is not finite is written as ``"nan"``, ``"inf"`` or ``"-inf"``.

        ``stage`` is ``sft``, ``rl``, ``probe`` or ``eval``, within which ``step`` counts.
        """
        values = {name: float(value) for name, value in scalars.items()}
        if reserved := RESERVED & set(values):
            raise ValueError(f"scalars may not be named {sorted(reserved)}: every line has these fields of its own")
        plain = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        line = {"time": time.time(), "stage": stage, "step": int(step), **plain}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        if self._remote is not None:
            taken = False
            with _going_on("log"):
                self._remote.log({f"{stage}/{name}": value for name, value in ({"step": step} | values).items()})
                taken = True
            self._remote = self._remote if taken else None  # one failure is enough

    def drop_after(self, stage: str, step: int) -> int:
        """Forget the lines of a stage beyond a step, when training resumes there. Returns how many were dropped."""
        self._file.close()
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if (x := json.loads(line))["stage"] != stage or x["step"] <= step]
        if len(kept) != len(lines):
            write_text_atomically(self.path, "".join(kept))
        self._file = self.path.open("a", encoding="utf-8")
        return len(lines) - len(kept)

    def close(self) -> None:
        """End tracking; may be called twice."""
        self._file.close()
        if self._remote is not None:
            remote, self._remote = self._remote, None
            with _going_on("finish"):
                remote.finish()

    def __exit__(self, *_: object) -> None:
        """End tracking."""
        self.close()

    def _mend(self) -> None:
        """Cut off a last line that a kill left unfinished, so that every line stays valid JSON."""
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end != len(data):
            log.warning("%s: cut off an unfinished last line", self.path)
            with self.path.open("r+b") as file:
                file.truncate(end)


def wandb_mode(settings: WandbConfig) -> Literal["online", "offline"]:
    """``online`` where a key is set (WANDB_API_KEY or netrc) and the settings allow it, else ``offline``."""
    from requests.utils import get_netrc_auth  # comes with wandb

    key = os.environ.get("WANDB_API_KEY") or get_netrc_auth(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    return "online" if key and not settings.offline_mode else "offline"


def start_wandb(settings: WandbConfig, cfg: RunConfig, run_dir: Path) -> Any:
    """Start a wandb run whose files lie in the run directory."""
    import wandb

    mode = wandb_mode(settings)
    log.info("Weights & Biases is %s", mode)
    return wandb.init(
        project=settings.project,
        entity=settings.entity,
        name=settings.run or cfg.name,
        dir=str(run_dir),
        mode=mode,
        config=asdict(cfg),
        settings=wandb.Settings(silent=True, init_timeout=30),
    )


@contextmanager
def _going_on(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a tracker must never stop training
        log.warning("Weights & Biases failed to %s (%s: %s); going on without it", what, type(error).__name__, error)
