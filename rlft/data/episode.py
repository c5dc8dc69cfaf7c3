"""Recorded episodes, what is known about a set of them, and the LeRobotDataset v3 that is written of one."""

import dataclasses
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlft.errors import RlftError

log = logging.getLogger(__name__)

REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
MAX_REPO_ID = 96
MAX_NAME = 255
MIN_VIDEO_SIDE = 32  # pixels; the AV1 encoder (SVT-AV1) kills the process on narrower images
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
    def load(cls, path: Path, seed: int) -> "Episode":
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
    frozen_action_dims: tuple[int, ...] = ()  # action dimensions that do not (a gripper that stays closed)
    versions: Mapping[str, str] = field(default_factory=dict)  # package name -> version
    fingerprint: str = ""  # see :func:`fingerprint`
    format: int = META_FORMAT  # of this file

    @classmethod
    def load(cls, root: Path) -> "DemoMeta":
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


def check_target(root: Path, repo_id: str) -> None:
    """Refuse a name that could lead out of its directory, and a directory that must not be written.

    Raises:
        DatasetError: the name is not owner/name; NUL or ``..`` in the path, a part that is too long, or something that
            is there already.
    """
    problems = []
    if len(repo_id) > MAX_REPO_ID or ".." in repo_id or not REPO_ID.fullmatch(repo_id):
        form = "letters, digits, '.', '_' and '-', each part starting with a letter or digit, no '..', at most"
        name = f"dataset.repo_id={repo_id[:MAX_REPO_ID]!r}"
        problems.append(f"{name} is no name of the form owner/name: {form} {MAX_REPO_ID} characters")
    if "\0" in str(root):
        problems.append("the path holds a NUL character")
    if ".." in root.parts:
        problems.append("the path holds '..'; name the directory itself")
    if any(len(part.encode()) > MAX_NAME for part in root.parts):
        problems.append(f"a part of the path is longer than {MAX_NAME} bytes")
    if not problems and (root.is_symlink() or root.exists()):
        problems.append("it exists; remove it, or choose another dataset.path")
    if problems:
        raise DatasetError(str(root)[:MAX_NAME].replace("\0", "\\0"), problems)


def write_demos(
    root: Path, repo_id: str, meta: DemoMeta, episodes: Iterable[Episode], *, video: bool = False
) -> DemoMeta:
    """Write a dataset beside its place and rename it at the end; whatever happens before, nothing of it stays.

    ``video`` stores images as AV1, which is lossy, instead of PNG inside parquet. The metadata come back as they are
    stored, with seeds and fingerprint.

    Raises:
        DatasetError: see :func:`check_target`; an episode holds bad numbers or shapes, or differs from those before; or
            there is none.
    """
    check_target(root, repo_id)
    partial, dataset = root.with_name(f".{root.name}.partial"), None
    partial.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial, ignore_errors=True)  # what an interrupted writer left
    numbers, seeds = list[tuple[np.ndarray, np.ndarray]](), list[int]()
    try:
        for episode in episodes:
            which = f"episode {len(seeds)} (seed {episode.seed})"
            if problems := [*episode.problems(), *_unlike(episode, meta, video)]:
                raise DatasetError(root, [f"{which}: {line}" for line in problems])
            if dataset is None:
                dataset = _create(partial, repo_id, meta, episode, video)
            try:
                _add(dataset, episode)
            except ValueError as error:
                raise DatasetError(root, [f"{which}: {error}"]) from error
            numbers.append((episode.state, episode.action))
            seeds.append(episode.seed)
        if dataset is None:
            raise DatasetError(root, ["no episode was recorded"])
        meta = dataclasses.replace(meta, seeds=tuple(seeds), fingerprint=fingerprint(numbers))
        dataset.finalize()
        (partial / META_FILE).write_text(json.dumps(dataclasses.asdict(meta), indent=2) + "\n")
        partial.rename(root)
    finally:
        if dataset is not None:
            dataset.finalize()  # a second time does nothing; files that it holds open could not be removed
        shutil.rmtree(partial, ignore_errors=True)
    log.info("wrote %d episodes, %d frames to %s", len(seeds), sum(len(action) for _, action in numbers), root)
    return meta


def _unlike(episode: Episode, meta: DemoMeta, video: bool) -> list[str]:
    """What does not fit this dataset."""
    out = []
    if tuple(episode.images) != tuple(meta.cameras):
        out.append(f"cameras are {list(episode.images)}; the dataset has {list(meta.cameras)}")
    small = [name for name, frames in episode.images.items() if min(frames.shape[1:3]) < MIN_VIDEO_SIDE]
    if video and small:
        least = f"smaller than {MIN_VIDEO_SIDE} pixels, too small for video"
        out.append(f"cameras {small} are {least}; set collect.save_video=false")
    return out


def _create(root: Path, repo_id: str, meta: DemoMeta, first: Episode, video: bool) -> Any:
    from datasets.utils.logging import disable_progress_bar
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    disable_progress_bar()  # there would be one for every episode
    kind, axes = "video" if video else "image", ["height", "width", "channels"]
    features: dict[str, dict[str, Any]] = {
        f"observation.images.{name}": {"dtype": kind, "shape": first.images[name].shape[1:], "names": axes}
        for name in meta.cameras
    }
    for key, values in (("observation.state", first.state), ("action", first.action)):
        width = values.shape[1]
        features[key] = {"dtype": "float32", "shape": (width,), "names": [f"{key}_{i}" for i in range(width)]}
    return LeRobotDataset.create(
        repo_id, fps=meta.fps, root=root, features=features, use_videos=video, video_backend="pyav"
    )


def _add(dataset: Any, episode: Episode) -> None:
    for step in range(len(episode.action)):
        frame: dict[str, Any] = {f"observation.images.{name}": x[step] for name, x in episode.images.items()}
        frame |= {"observation.state": episode.state[step], "action": episode.action[step], "task": episode.task}
        dataset.add_frame(frame)
    dataset.save_episode(parallel_encoding=False)
