"""Demonstrations in memory: the batches of supervised training, as the policy's own observations."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow.parquet as pq
import torch

from rlft.data.episode import DatasetError, DemoMeta
from rlft.data.layout import IMAGE_PREFIX, Layout, open_layout
from rlft.types import Observation


@dataclass(frozen=True)
class DemoBatch:
    """B rows of supervised training."""

    demos: DemoSet  # where the rows are from
    index: torch.Tensor  # int64 `[B]`, the frames at which they start
    # float32 `[B, H, d]`, controller units; beyond the episode's end its last action is repeated
    actions: torch.Tensor
    is_pad: torch.Tensor  # bool `[B, H]`, True beyond the episode's end

    @property
    def obs(self) -> Observation:
        """Observations, gathered when asked for: uint8 ``[B, height, width, 3]`` per camera, state ``[B, S]``."""
        demos, index = self.demos, self.index
        images = {name: frames[index] for name, frames in demos.images.items()}
        return Observation(images, demos.state[index], [demos.tasks[i] for i in index.tolist()])


@dataclass(eq=False, repr=False)
class DemoSet:
    """A whole dataset in memory, N frames in all."""

    meta: DemoMeta  # what the numbers mean
    images: dict[str, torch.Tensor]  # camera name -> uint8 `[N, height, width, 3]`
    state: torch.Tensor  # float32 `[N, S]`, physical units
    action: torch.Tensor  # float32 `[N, d]`, controller units
    lengths: torch.Tensor  # int64 `[episodes]`, steps per episode, in order
    tasks: list[str]  # N language instructions
    horizon: int  # H, steps per action window
    episode: torch.Tensor = field(init=False)  # int64 `[N]`, the episode of each frame

    def __post_init__(self) -> None:
        """Find the episode of each frame, and its end."""
        if self.horizon < 1:
            raise ValueError(f"horizon={self.horizon}; must be at least 1")
        self.episode = torch.repeat_interleave(torch.arange(len(self.lengths)), self.lengths)
        self._last = (torch.cumsum(self.lengths, 0) - 1)[self.episode]  # the last frame of each frame's episode

    def __len__(self) -> int:
        """N."""
        return len(self.action)

    @classmethod
    def load(cls, path: Path | str, horizon: int) -> Self:
        """Read a LeRobotDataset v3 into memory; a DatasetError lists every problem found in it."""
        layout = open_layout(path)
        return cls(
            layout.meta,
            {name: torch.from_numpy(_frames(layout, name)) for name in layout.meta.cameras},
            torch.from_numpy(layout.columns["observation.state"].copy()),
            torch.from_numpy(layout.columns["action"].copy()),
            torch.from_numpy(layout.lengths),
            [layout.tasks[i] for i in layout.columns["task_index"]],
            horizon,
        )

    def rows(self, index: torch.Tensor) -> DemoBatch:
        """The training rows that start at frames ``index``, int64 ``[B]``."""
        steps = index[:, None] + torch.arange(self.horizon)
        last = self._last[index][:, None]
        return DemoBatch(self, index, self.action[torch.minimum(steps, last)], steps > last)

    def sample(self, generator: torch.Generator, batch: int) -> DemoBatch:
        """B rows drawn evenly from all frames, with replacement; the same state of a CPU generator gives the same."""
        return self.rows(torch.randint(len(self), (batch,), generator=generator))


def _frames(layout: Layout, camera: str) -> np.ndarray:
    """All images of one camera, uint8 ``[N, height, width, 3]``."""
    height, width, _ = layout.info["features"][f"{IMAGE_PREFIX}{camera}"]["shape"]
    out = np.empty((len(layout.columns["index"]), height, width, 3), dtype=np.uint8)
    source, count = _video_frames if camera in layout.video_files else _png_frames, 0
    for count, frame in enumerate(source(layout, camera), start=1):
        if frame.shape != out.shape[1:]:
            problem = f"frame {count - 1} of camera {camera!r} is {list(frame.shape)}; wanted {list(out.shape[1:])}"
            raise DatasetError(layout.root, [problem])
        if count <= len(out):
            out[count - 1] = frame
    if count != len(out):
        raise DatasetError(layout.root, [f"camera {camera!r} has {count} frames; the data files have {len(out)}"])
    return out


def _png_frames(layout: Layout, camera: str) -> Iterator[np.ndarray]:
    from PIL import Image, UnidentifiedImageError

    key = f"{IMAGE_PREFIX}{camera}"
    tables = (pq.read_table(path, columns=[key]) for path in layout.data_files)  # one file's images at a time
    for row, item in enumerate(item for table in tables for item in table.column(key).to_pylist()):
        try:
            yield np.asarray(Image.open(io.BytesIO(item["bytes"])).convert("RGB"))
        except (UnidentifiedImageError, OSError, TypeError) as error:
            problem = f"frame {row} of camera {camera!r} cannot be decoded: {error}"
            raise DatasetError(layout.root, [problem]) from error


def _video_frames(layout: Layout, camera: str) -> Iterator[np.ndarray]:
    import av

    for path in layout.video_files[camera]:
        try:
            with av.open(str(path)) as container:
                yield from (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        except (av.FFmpegError, IndexError) as error:
            raise DatasetError(layout.root, [f"{path.relative_to(layout.root)} cannot be decoded: {error}"]) from error
