"""Demonstrations in memory: a LeRobotDataset v3, read and checked, and the batches of supervised training.

The parquet files are read directly: no second copy in a cache, and nothing is fetched from a network where a file is
missing.
"""

import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rlft.data.episode import DatasetError, DemoMeta, fingerprint
from rlft.errors import command
from rlft.types import Observation

VERSION = "v3."
IMAGE_PREFIX = "observation.images."
NUMBERS = ("observation.state", "action")
COLUMNS = (*NUMBERS, "episode_index", "frame_index", "index", "task_index")


@dataclass(frozen=True)
class DemoBatch:
    """B rows of supervised training."""

    demos: "DemoSet"  # where the rows are from
    index: torch.Tensor  # int64 `[B]`, the frames at which they start
    actions: torch.Tensor  # float32 `[B, H, d]`, controller units; beyond the episode's end its last one again
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

    def __post_init__(self) -> None:
        """Find the last frame of each frame's episode."""
        if self.horizon < 1:
            raise ValueError(f"horizon={self.horizon}; must be at least 1")
        self._last = (torch.cumsum(self.lengths, 0) - 1).repeat_interleave(self.lengths)  # int64 `[N]`

    def __len__(self) -> int:
        """N."""
        return len(self.action)

    @classmethod
    def load(cls, path: Path | str, horizon: int) -> Self:
        """Read a LeRobotDataset v3 into memory; a DatasetError lists every problem found in it."""
        layout = open_layout(path)
        images = {name: torch.from_numpy(_frames(layout, name)) for name in layout.meta.cameras}
        state, action = (torch.from_numpy(layout.columns[key].copy()) for key in NUMBERS)
        tasks = [layout.tasks[i] for i in layout.columns["task_index"]]
        return cls(layout.meta, images, state, action, torch.from_numpy(layout.lengths), tasks, horizon)

    def rows(self, index: torch.Tensor) -> DemoBatch:
        """The training rows that start at frames ``index``, int64 ``[B]``."""
        steps = index[:, None] + torch.arange(self.horizon)
        last = self._last[index][:, None]
        return DemoBatch(self, index, self.action[torch.minimum(steps, last)], steps > last)

    def sample(self, generator: torch.Generator, batch: int) -> DemoBatch:
        """B rows drawn evenly from all frames, with replacement; the same state of a CPU generator gives the same."""
        return self.rows(torch.randint(len(self), (batch,), generator=generator))


def _frames(layout: "Layout", camera: str) -> np.ndarray:
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


def _png_frames(layout: "Layout", camera: str) -> Iterator[np.ndarray]:
    from PIL import Image, UnidentifiedImageError

    key = f"{IMAGE_PREFIX}{camera}"
    tables = (pq.read_table(path, columns=[key]) for path in layout.data_files)  # one file's images at a time
    for row, item in enumerate(item for table in tables for item in table.column(key).to_pylist()):
        try:
            yield np.asarray(Image.open(io.BytesIO(item["bytes"])).convert("RGB"))
        except (UnidentifiedImageError, OSError, TypeError) as error:
            problem = f"frame {row} of camera {camera!r} cannot be decoded: {error}"
            raise DatasetError(layout.root, [problem]) from error


def _video_frames(layout: "Layout", camera: str) -> Iterator[np.ndarray]:
    import av

    for path in layout.video_files[camera]:
        try:
            with av.open(str(path)) as container:
                yield from (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        except (av.FFmpegError, IndexError) as error:
            raise DatasetError(layout.root, [f"{path.relative_to(layout.root)} cannot be decoded: {error}"]) from error


@dataclass
class Layout:
    """A dataset directory, opened and checked."""

    root: Path
    meta: DemoMeta  # what the numbers mean
    info: dict[str, Any]  # lerobot's own description
    lengths: np.ndarray  # steps per episode
    data_files: list[Path]  # in order
    video_files: dict[str, list[Path]]  # camera name -> in order; only of cameras whose images lie in videos
    columns: dict[str, np.ndarray]  # `observation.state` float32 `[N, S]`, `action` `[N, d]`, integers `[N]`
    tasks: list[str]  # language instruction per task index


def open_layout(root: Path | str) -> Layout:
    """Open and check a dataset, images not decoded; a DatasetError lists every problem."""
    root = Path(root)
    info, meta = _read_info(root), DemoMeta.load(root)
    episodes = _read_tables(root, sorted((root / "meta" / "episodes").glob("*/*.parquet")), "meta/episodes")
    features, cameras = info["features"], {name: f"{IMAGE_PREFIX}{name}" for name in meta.cameras}
    lacking = [key for key in (*NUMBERS, *cameras.values()) if key not in features]
    problems = [f"feature {key!r} is missing from meta/info.json" for key in lacking]
    data_files = _referenced(root, info["data_path"], episodes, "data")
    video_files = {
        name: _referenced(root, info["video_path"], episodes, f"videos/{key}", video_key=key)
        for name, key in cameras.items()
        if key in features and features[key]["dtype"] == "video"
    }
    wanted = itertools.chain(data_files, *video_files.values())
    problems += [f"{path.relative_to(root)} is missing" for path in wanted if not path.is_file()]
    if problems:
        raise DatasetError(root, problems)
    table = _read_tables(root, data_files, "data", list(COLUMNS))
    columns = {key: _numpy(table.column(key)) for key in COLUMNS}
    for key in NUMBERS:
        if columns[key].ndim == 1:  # vectors of one number are stored as numbers
            columns[key] = columns[key].astype(np.float32)[:, None]
    tasks_table = _read_tables(root, [root / "meta" / "tasks.parquet"], "meta/tasks").to_pydict()
    tasks = [text for _, text in sorted(zip(tasks_table["task_index"], tasks_table["task"]))]
    lengths = np.asarray(episodes.column("length").to_pylist(), dtype=np.int64)
    layout = Layout(root, meta, info, lengths, data_files, video_files, columns, tasks)
    if problems := _problems(layout, episodes):
        raise DatasetError(root, problems)
    return layout


def _read_info(root: Path) -> dict[str, Any]:
    path = root / "meta" / "info.json"
    if not path.is_file():
        problem = f"meta/info.json is missing: this is no LeRobotDataset; {command('collect')} makes one"
        raise DatasetError(root, [problem])
    try:
        info: dict[str, Any] = json.loads(path.read_text())
        version = str(info["codebase_version"])
        missing = [key for key in ("features", "total_frames", "total_episodes", "data_path") if key not in info]
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(root, [f"meta/info.json cannot be read ({type(error).__name__}: {error})"]) from error
    if not version.startswith(VERSION):
        remedy = "convert it with lerobot's v2.1-to-v3.0 script"
        raise DatasetError(root, [f"codebase_version is {version}; wanted {VERSION}x: {remedy}"])
    if missing:
        raise DatasetError(root, [f"meta/info.json lacks {missing}"])
    return info


def _read_tables(root: Path, paths: list[Path], what: str, columns: list[str] | None = None) -> pa.Table:
    if not paths:
        raise DatasetError(root, [f"{what} has no parquet file"])
    tables = []
    for path in paths:
        try:
            tables.append(pq.read_table(path, columns=columns))
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(root, [f"{path.relative_to(root)} cannot be read: {error}"]) from error
    table = pa.concat_tables(tables, promote_options="default")
    if lacking := [name for name in columns or () if name not in table.column_names]:
        raise DatasetError(root, [f"{what} lacks the columns {lacking}"])
    return table


def _referenced(root: Path, template: str, episodes: pa.Table, prefix: str, **names: str) -> list[Path]:
    """The files that the episode table names, in the order of the episodes."""
    keys = [f"{prefix}/chunk_index", f"{prefix}/file_index"]
    if lacking := [key for key in keys if key not in episodes.column_names]:
        raise DatasetError(root, [f"meta/episodes lacks the columns {lacking}"])
    pairs = dict.fromkeys(zip(*(episodes.column(key).to_pylist() for key in keys)))
    try:
        paths = [root / template.format(chunk_index=chunk, file_index=file, **names) for chunk, file in pairs]
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise DatasetError(root, [f"meta/info.json: the path template {template!r} cannot be filled in"]) from error
    if outside := [path for path in paths if not path.resolve().is_relative_to(root.resolve())]:
        raise DatasetError(root, [f"{path} lies outside the dataset" for path in outside])
    return paths


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers ``[N]``, or of equally long lists, float32 ``[N, d]``; ragged lists become an empty one."""
    values = column.to_numpy()
    if values.dtype != object:
        return values
    same = len({len(row) for row in values}) == 1
    return np.stack(values).astype(np.float32) if same else np.zeros((0, 0), dtype=np.float32)


def _problems(layout: Layout, episodes: pa.Table) -> list[str]:
    out = []
    frames, lengths, columns = len(layout.columns["index"]), layout.lengths, layout.columns
    numbers = episodes.column("episode_index").to_pylist()
    if numbers != list(range(len(numbers))):
        out.append("meta/episodes: episode_index does not count 0, 1, 2, ...")
    out += [f"episode {i} has no steps" for i in np.flatnonzero(lengths < 1)]
    for name, count in (("total_episodes", len(lengths)), ("total_frames", frames)):
        if layout.info[name] != count:
            out.append(f"meta/info.json: {name} is {layout.info[name]}, but {count} are in the files")
    counts = np.bincount(columns["episode_index"].astype(np.int64), minlength=len(lengths)).tolist()
    out += [
        f"episode {i} has {found} frames in the data files; meta/episodes says {wanted}"
        for i, (found, wanted) in enumerate(itertools.zip_longest(counts, lengths.tolist(), fillvalue=0))
        if found != wanted
    ]
    if not np.array_equal(columns["index"], np.arange(frames)):
        out.append("index does not count 0, 1, 2, ...: frames are missing, doubled or out of order")
    if not out and not np.array_equal(columns["frame_index"], np.concatenate([np.arange(n) for n in lengths])):
        out.append("frame_index does not count 0, 1, 2, ... within every episode")
    if frames and (last := int(columns["task_index"].max())) >= len(layout.tasks):
        out.append(f"task_index reaches {last}; meta/tasks has {len(layout.tasks)} tasks")
    for key in NUMBERS:
        values, wanted = columns[key], [frames, *layout.info["features"][key]["shape"]]
        if list(values.shape) != wanted:
            out.append(f"{key} is {list(values.shape)}; wanted {wanted}")
        elif len(bad := np.flatnonzero(~np.isfinite(values).all(axis=1))):
            episode, step = (int(columns[index][bad[0]]) for index in ("episode_index", "frame_index"))
            out.append(f"{key} is not finite in {len(bad)} frames, first in episode {episode}, step {step}")
    if out:
        return out
    found = fingerprint(zip(*(np.split(columns[key], np.cumsum(lengths)[:-1]) for key in NUMBERS)))
    if found != layout.meta.fingerprint:
        said = f"rlft.json says {layout.meta.fingerprint[:12] or 'none'}..."
        out.append(f"the fingerprint is {found[:12]}..., {said}: the numbers were changed after recording")
    return out
