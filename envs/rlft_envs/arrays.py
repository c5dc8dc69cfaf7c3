"""Where observations and outcomes of the environments are kept: plain numpy, laid out once in memory that is shared.

Every number is written once, by the worker whose environment it is about, and copied once, into what the caller gets.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from rlft.types import ChunkStep, EnvSpec, Observation, map_rows
from rlft_envs.errors import EnvSetupError
from rlft_envs.single import ObservationRow

ALIGNMENT = 64  # bytes; each array starts on a cache line
MAX_METRICS = 64
FLAGS = ("terminated", "truncated", "success", "success_now", "invalid")


@dataclass
class EnvArrays:
    """Observations of n environments, and where each stands: the fields of :class:`rlft.types.ChunkStep`."""

    images: dict[str, np.ndarray]  # camera name -> uint8 `[n, height, width, 3]`
    state: np.ndarray  # float32 `[n, S]`
    privileged: np.ndarray  # float32 `[n, P]`; P may be 0
    n_executed: np.ndarray  # int64 `[n]`, of the last chunk
    terminated: np.ndarray  # bool `[n]`; the other flags likewise
    truncated: np.ndarray
    success: np.ndarray
    success_now: np.ndarray
    invalid: np.ndarray
    metrics: np.ndarray  # float32 `[n, MAX_METRICS]`, of which the first columns are named
    metric_names: list[str] = field(default_factory=list, init=False)  # they come with the first step

    def part(self, rows: slice) -> EnvArrays:
        """The same memory, of some environments only."""
        arrays = {x.name: getattr(self, x.name) for x in fields(self) if x.init}
        return EnvArrays(**map_rows(lambda array: array[rows], arrays))

    @property
    def ended(self) -> np.ndarray:
        """Bool ``[n]``: has to be reset before it can be stepped."""
        return self.terminated | self.truncated | self.invalid

    def write(self, slot: int, row: ObservationRow) -> None:
        """Store one environment's observation; numbers that are not finite become 0 (the caller marks it invalid)."""
        for name, image in row.images.items():
            self.images[name][slot] = image
        self.state[slot] = np.nan_to_num(row.state, posinf=0.0, neginf=0.0)
        if row.privileged is not None:
            self.privileged[slot] = np.nan_to_num(row.privileged, posinf=0.0, neginf=0.0)

    def clear(self, slots: int | Sequence[int]) -> None:
        """Nothing executed, nothing ended."""
        for values in (self.n_executed, self.metrics, *(getattr(self, name) for name in FLAGS)):
            values[slots] = 0

    def write_metrics(self, slot: int, metrics: Mapping[str, float]) -> None:
        """Keep an environment's task metrics of its last executed step; errors as of :meth:`name_metrics`."""
        if self.metric_names != list(metrics):
            self.name_metrics(metrics)
        self.metrics[slot, : len(metrics)] = list(metrics.values())

    def name_metrics(self, names: Iterable[str]) -> None:
        """Say what the columns of the metrics are; EnvSetupError where they are something else already, or too many."""
        new, old = list(names), self.metric_names
        if len(new) > MAX_METRICS:
            raise EnvSetupError(f"the task reports {len(new)} metrics; at most {MAX_METRICS} can be kept: {new}")
        if old and new != old:
            rule = "a task has to report the same ones, in the same order, at every step and in every environment"
            raise EnvSetupError(f"the task's metrics were {old} and are {new} now; {rule}")
        self.metric_names = new

    def observation(self, slots: Sequence[int], tasks: Sequence[str]) -> Observation:
        """A copy of the named rows; ``tasks`` are the instructions of all n environments."""
        rows, privileged = list(slots), self.privileged if self.privileged.shape[1] else None
        return map_rows(lambda array: array[rows], Observation(self.images, self.state, list(tasks), privileged))

    def chunk_step(self, rewards: np.ndarray, tasks: Sequence[str]) -> ChunkStep:
        """A copy of everything; ``rewards`` are those of the chunk, float32 ``[n, A]``."""
        metrics = {name: self.metrics[:, column] for column, name in enumerate(self.metric_names)}
        others = {name: getattr(self, name) for name in ("n_executed", *FLAGS)}
        copied = map_rows(np.copy, {"rewards": rewards, "metrics": metrics, **others})
        return ChunkStep(obs=self.observation(range(len(tasks)), tasks), **copied)


def shared_arrays(descriptor: int, spec: EnvSpec, act_steps: int) -> tuple[EnvArrays, np.ndarray, np.ndarray]:
    """The arrays of all E environments in memory that processes share, which grows where it is too small.

    What does not depend on A comes first: it stays where it is when A changes.

    Returns:
        the arrays; a chunk's actions, float32 ``[E, A, d]``; its rewards, float32 ``[E, A]``.
    """
    E = spec.num_envs
    layout: list[tuple[str, tuple[int, ...], Any]] = [
        *((f"image/{c.name}", (E, c.height, c.width, 3), np.uint8) for c in spec.cameras),
        ("state", (E, spec.state_dim), np.float32),
        ("privileged", (E, spec.privileged_dim), np.float32),
        ("n_executed", (E,), np.int64),
        *((name, (E,), np.bool_) for name in FLAGS),
        ("metrics", (E, MAX_METRICS), np.float32),
        ("actions", (E, act_steps, spec.act_dim), np.float32),
        ("rewards", (E, act_steps), np.float32),
    ]
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for _, shape, dtype in layout]
    starts = list(itertools.accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))
    if os.fstat(descriptor).st_size < starts[-1]:
        os.ftruncate(descriptor, starts[-1])
    memory = mmap.mmap(descriptor, starts[-1])
    arrays: dict[str, Any] = {}
    for (name, shape, dtype), start in zip(layout, starts):
        arrays[name] = np.ndarray(shape, dtype, buffer=memory, offset=start)
    actions, rewards = arrays.pop("actions"), arrays.pop("rewards")
    images = {camera.name: arrays.pop(f"image/{camera.name}") for camera in spec.cameras}
    return EnvArrays(images, **arrays), actions, rewards
