"""Writes demonstrations as a LeRobotDataset v3, whole or not at all."""

from __future__ import annotations

import dataclasses
import logging
import re
import shutil
from pathlib import Path
from typing import Any, Self

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


class DemoWriter:
    """Collects episodes in a temporary directory beside the target and renames it at the end.

    Use as a context manager: leaving it without :meth:`finish`, or by an exception, removes what was written. Seeds and
    fingerprint are filled into ``meta``; ``video`` stores images as AV1, which is lossy, instead of PNG inside parquet.

    Raises:
        DatasetError: see :func:`check_target`.
    """

    def __init__(self, root: Path, repo_id: str, meta: DemoMeta, *, video: bool = False) -> None:
        check_target(root, repo_id)
        self.root, self.repo_id, self.meta, self.video = root, repo_id, meta, video
        self._temporary = root.with_name(f".{root.name}.partial")
        self._dataset: Any = None
        self._numbers: list[tuple[np.ndarray, np.ndarray]] = []
        self._seeds: list[int] = []

    def __enter__(self) -> Self:
        self._temporary.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._temporary, ignore_errors=True)  # what an interrupted writer left
        return self

    def __exit__(self, *error: object) -> None:
        if self._dataset is not None:
            self._dataset.finalize()
            self._dataset = None
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _create(self, first: Episode) -> Any:
        from datasets.utils.logging import disable_progress_bar
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        disable_progress_bar()  # there would be one for every episode
        kind, axes = "video" if self.video else "image", ["height", "width", "channels"]
        features: dict[str, dict[str, Any]] = {
            f"observation.images.{name}": {"dtype": kind, "shape": first.images[name].shape[1:], "names": axes}
            for name in self.meta.cameras
        }
        for key, values in (("observation.state", first.state), ("action", first.action)):
            width = values.shape[1]
            features[key] = {"dtype": "float32", "shape": (width,), "names": [f"{key}_{i}" for i in range(width)]}
        return LeRobotDataset.create(
            self.repo_id, fps=self.meta.fps, root=self._temporary, features=features, use_videos=self.video,
            video_backend="pyav",
        )  # fmt: skip

    def add(self, episode: Episode) -> None:
        """Append one episode; a DatasetError where it holds bad numbers or shapes, or differs from those before."""
        which, problems = f"episode {len(self._seeds)} (seed {episode.seed})", episode.problems()
        if tuple(episode.images) != tuple(self.meta.cameras):
            problems.append(f"cameras are {list(episode.images)}; the dataset has {list(self.meta.cameras)}")
        small = [name for name, frames in episode.images.items() if min(frames.shape[1:3]) < MIN_VIDEO_SIDE]
        if self.video and small:
            least = f"smaller than {MIN_VIDEO_SIDE} pixels, too small for video"
            problems.append(f"cameras {small} are {least}; set collect.save_video=false")
        if problems:
            raise DatasetError(self.root, [f"{which}: {line}" for line in problems])
        if self._dataset is None:
            self._dataset = self._create(episode)
        for step in range(len(episode)):
            frame: dict[str, Any] = {f"observation.images.{name}": x[step] for name, x in episode.images.items()}
            frame |= {"observation.state": episode.state[step], "action": episode.action[step], "task": episode.task}
            try:
                self._dataset.add_frame(frame)
            except ValueError as error:
                raise DatasetError(self.root, [f"{which}, step {step}: {error}"]) from error
        self._dataset.save_episode(parallel_encoding=False)
        self._numbers.append((episode.state, episode.action))
        self._seeds.append(episode.seed)

    def finish(self) -> DemoMeta:
        """Complete the dataset and move it to its place; the metadata as stored, with seeds and fingerprint."""
        if self._dataset is None:
            raise DatasetError(self.root, ["no episode was recorded"])
        self._dataset.finalize()
        self._dataset = None
        meta = dataclasses.replace(self.meta, seeds=tuple(self._seeds), fingerprint=fingerprint(self._numbers))
        meta.save(self._temporary)
        self._temporary.rename(self.root)
        frames = sum(len(action) for _, action in self._numbers)
        log.info("wrote %d episodes, %d frames to %s", len(self._seeds), frames, self.root)
        return meta
