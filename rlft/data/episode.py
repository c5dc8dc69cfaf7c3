"""One recorded episode, and what is known about a set of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlft.errors import RlftError

META_FILE = "rlft.json"
META_FORMAT = 2  # 1 called the frozen dimensions constant_state and constant_action
REMEDY = "collect the demonstrations anew, or write this file by hand (rlft.data.episode.DemoMeta says what is in it)"


class DatasetError(RlftError):
    """A dataset that cannot be written or used. Lists every problem, the first ten in the message."""

    exit_code = 2

    def __init__(self, source: str | Path, problems: list[str]) -> None:
        self.problems = problems  # one line each
        shown = [f"  - {line}" for line in problems[:10]]
        if len(problems) > len(shown):
            shown.append(f"  ... and {len(problems) - len(shown)} more")
        super().__init__("\n".join([f"dataset {source} cannot be used:", *shown]))


@dataclass(frozen=True)
class Episode:
    """One demonstration of T steps: what was seen before each action, and the action."""

    images: Mapping[str, np.ndarray]  # camera name -> uint8 `[T, height, width, 3]`, RGB
    state: np.ndarray  # float32 `[T, S]`, physical units
    action: np.ndarray  # float32 `[T, d]`, controller units
    task: str  # language instruction
    seed: int  # the seed that the environment was reset with

    def __len__(self) -> int:
        """T."""
        return len(self.action)

    def problems(self) -> list[str]:
        """What would make this episode poison a dataset; empty if nothing."""
        steps, out = len(self.action), []
        if steps == 0:
            return ["the episode has no steps"]
        if not self.task.strip():
            out.append("task is empty; give env.instruction")
        for name, values in (("state", self.state), ("action", self.action)):
            if values.dtype != np.float32 or values.ndim != 2 or len(values) != steps:
                out.append(f"{name} is {values.dtype} {list(values.shape)}; wanted float32 [{steps}, dimensions]")
            elif not np.isfinite(values).all():
                row, dim = np.argwhere(~np.isfinite(values))[0].tolist()
                out.append(f"{name} is not finite, first at step {row}, dimension {dim}")
        for name, frames in self.images.items():
            if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) != steps:
                wanted = f"wanted uint8 [{steps}, height, width, 3]"
                out.append(f"camera {name!r} is {frames.dtype} {list(frames.shape)}; {wanted}")
        return out

    @classmethod
    def load(cls, path: Path, seed: int) -> Episode:
        """Read what :meth:`rlft_envs.record.DemoRecording.save` wrote; nothing in the file is executed."""
        with np.load(path, allow_pickle=False) as data:
            images = {key.removeprefix("image:"): data[key] for key in data.files if key.startswith("image:")}
            return cls(images=images, state=data["state"], action=data["action"], task=str(data["task"]), seed=seed)


@dataclass(frozen=True)
class DemoMeta:
    """What a dataset's numbers mean; stored beside them as ``rlft.json``."""

    env_id: str  # the environment that was recorded
    control_mode: str  # the controller that the actions are meant for
    cameras: tuple[str, ...]  # camera names, in order
    state_terms: tuple[str, ...]  # what the state vector is made of
    fps: int  # control steps per second
    planner: str  # who demonstrated
    run_seed: int  # the seed that the episodes' seeds are derived from
    seeds: tuple[int, ...] = ()  # one per episode
    frozen_state_dims: tuple[int, ...] = ()  # state dimensions that never change on purpose
    # action dimensions that never change on purpose (a gripper that stays closed)
    frozen_action_dims: tuple[int, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)  # package name -> version
    fingerprint: str = ""  # see :func:`fingerprint`
    format: int = META_FORMAT  # of this file

    def save(self, root: Path) -> None:
        """Write ``rlft.json`` into a dataset directory."""
        (root / META_FILE).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, root: Path) -> DemoMeta:
        """Read ``rlft.json``; a DatasetError where it is missing, broken, or of another format."""
        try:
            data: dict[str, Any] = json.loads((root / META_FILE).read_text())
            if (found := data["format"]) != META_FORMAT:
                problem = f"{META_FILE} has format {found}; this version reads {META_FORMAT}: {REMEDY}"
                raise DatasetError(root, [problem])
            known: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in data.items()}
            return cls(**known)
        except (OSError, ValueError, TypeError, KeyError) as error:
            problem = f"{META_FILE} cannot be read ({type(error).__name__}: {error}): {REMEDY}"
            raise DatasetError(root, [problem]) from error


def fingerprint(episodes: Iterable[tuple[np.ndarray, np.ndarray]]) -> str:
    """The sha256 over (state ``[T, S]``, action ``[T, d]``) of every episode and their lengths, in order."""
    digest = hashlib.sha256()
    for state, action in episodes:
        digest.update(np.asarray([len(action), state.shape[1], action.shape[1]], dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(state, dtype="<f4").tobytes())
        digest.update(np.ascontiguousarray(action, dtype="<f4").tobytes())
    return digest.hexdigest()
