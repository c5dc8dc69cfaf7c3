"""Where observations and outcomes of the environments are kept: plain numpy, laid out once in memory that is shared.

Every number is written once, by the worker whose environment it is about, and copied once, into what the caller gets.
"""

import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from rlft.types import ChunkStep, EnvSpec, Observation, map_rows
from rlft_envs.errors import EnvSetupError
from rlft_envs.single import ObservationRow

MAX_METRICS = 64
FLAGS = ("terminated", "truncated", "success", "success_now", "invalid")


@dataclass(kw_only=True)
class SharedStep(ChunkStep):
    """What the last chunk led to in n environments, and their observations, where whoever shares the memory sees it."""

    actions: np.ndarray  # float32 `[n, A, d]`, of the chunk
    columns: np.ndarray  # float32 `[n, MAX_METRICS]`, of which `metrics` names the first; the names come with a step

    def write(self, slot: int, row: ObservationRow) -> None:
        """Store one environment's observation; numbers that are not finite become 0 (the caller marks it invalid)."""
        for name, image in row.images.items():
            self.obs.images[name][slot] = image
        self.obs.state[slot] = np.nan_to_num(row.state, posinf=0.0, neginf=0.0)
        if self.obs.privileged is not None and row.privileged is not None:
            self.obs.privileged[slot] = np.nan_to_num(row.privileged, posinf=0.0, neginf=0.0)

    def clear(self, slots: int | Sequence[int]) -> None:
        """Nothing executed, nothing ended."""
        for values in (self.n_executed, self.columns, *(getattr(self, name) for name in FLAGS)):
            values[slots] = 0

    def write_metrics(self, slot: int, metrics: Mapping[str, float]) -> None:
        """Keep an environment's task metrics of its last executed step; errors as of :meth:`name_metrics`."""
        self.name_metrics(metrics)
        self.columns[slot, : len(metrics)] = list(metrics.values())

    def name_metrics(self, names: Iterable[str]) -> None:
        """Say what the columns are; EnvSetupError where they are something else already, or too many."""
        new, old = list(names), list(self.metrics)
        if len(new) > MAX_METRICS:
            raise EnvSetupError(f"the task reports {len(new)} metrics; at most {MAX_METRICS} can be kept: {new}")
        if old and new != old:
            rule = "a task has to report the same ones, in the same order, at every step and in every environment"
            raise EnvSetupError(f"the task's metrics were {old} and are {new} now; {rule}")
        self.metrics = dict(zip(new, self.columns.T))

    def copy(self) -> ChunkStep:
        """What the caller gets, who may keep it."""
        return ChunkStep(**{x.name: map_rows(np.copy, getattr(self, x.name)) for x in fields(ChunkStep)})


def shared_step(descriptor: int, spec: EnvSpec, act_steps: int) -> SharedStep:
    """The arrays of all E environments in memory that processes share, which grows where it is too small.

    What does not depend on A comes first: it stays where it is when A changes.
    """
    E = spec.num_envs
    parts: list[tuple[str, Any, tuple[int, ...]]] = [
        *((f"image/{c.name}", np.uint8, (E, c.height, c.width, 3)) for c in spec.cameras),
        ("state", np.float32, (E, spec.state_dim)),
        ("privileged", np.float32, (E, spec.privileged_dim)),
        ("n_executed", np.int64, (E,)),
        *((name, np.bool_, (E,)) for name in FLAGS),
        ("columns", np.float32, (E, MAX_METRICS)),
        ("actions", np.float32, (E, act_steps, spec.act_dim)),
        ("rewards", np.float32, (E, act_steps)),
    ]
    layout = np.dtype(parts, align=True)
    if os.fstat(descriptor).st_size < layout.itemsize:
        os.ftruncate(descriptor, layout.itemsize)
    record: Any = np.ndarray((), layout, buffer=mmap.mmap(descriptor, layout.itemsize))
    arrays = {name: record[name] for name, *_ in parts}
    images = {camera.name: arrays.pop(f"image/{camera.name}") for camera in spec.cameras}
    state, privileged = arrays.pop("state"), arrays.pop("privileged")
    obs = Observation(images, state, [""] * E, privileged if spec.privileged_dim else None)
    return SharedStep(obs, **arrays)
