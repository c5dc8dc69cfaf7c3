"""Writes demonstrations as a LeRobotDataset v3, whole or not at all."""

from __future__ import annotations

import dataclasses
import logging
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rlft.data.episode import DatasetError, DemoMeta, Episode, fingerprint

log = logging.getLogger(__name__)

REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
MAX_REPO_ID = 96
MAX_NAME = 255
MIN_VIDEO_SIDE = 32  # pixels; the AV1 encoder (SVT-AV1) kills the process on narrower images


def check_target(root: Path, repo_id: str) -> None:
    """Refuse a name that could lead out of its directory, and a directory that must not be written.

    Raises:
        DatasetError: the name is not owner/name; NUL or ``..`` in the path, a part that is too long, or something that
            is there already.
    """
    problems = []
    if len(repo_id) > MAX_REPO_ID or ".." in repo_id or not REPO_ID.fullmatch(repo_id):
        problems.append(
            f"dataset.repo_id={repo_id[:MAX_REPO_ID]!r} is no name of the form owner/name: letters, digits, "
            "'.', '_' and '-', each part starting with a letter or digit, no '..', "
            f"at most {MAX_REPO_ID} characters"
        )
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
        meta.save(partial)
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
    for step in range(len(episode)):
        frame: dict[str, Any] = {f"observation.images.{name}": x[step] for name, x in episode.images.items()}
        frame |= {"observation.state": episode.state[step], "action": episode.action[step], "task": episode.task}
        dataset.add_frame(frame)
    dataset.save_episode(parallel_encoding=False)
