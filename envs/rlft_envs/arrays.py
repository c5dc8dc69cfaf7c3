"""Where observations and outcomes of several environments are kept: plain numpy, laid out once.

The same layout serves private memory and memory shared with a worker, so that a picture is written once, where it is
read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlft.types import ChunkStep, EnvSpec, Observation
from rlft_envs.single import ObservationRow

ALIGNMENT = 64  # bytes; each array starts on a cache line


@dataclass
class ObservationArrays:
    """Observations of n environments.

    Attributes:
        images: camera name -> uint8 ``[n, height, width, 3]``.
        state: float32 ``[n, S]``.
        privileged: float32 ``[n, P]``, or None where P = 0.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray
    privileged: np.ndarray | None

    @staticmethod
    def nbytes(spec: EnvSpec, n: int) -> int:
        """Bytes that :meth:`over` needs."""
        return sum(_padded(shape, dtype) for _, shape, dtype in _layout(spec, n))

    @classmethod
    def over(cls, memory: Any, spec: EnvSpec, n: int) -> ObservationArrays:
        """Lay the arrays out over a writable buffer of at least :meth:`nbytes` bytes."""
        arrays: dict[str, np.ndarray] = {}
        offset = 0
        for name, shape, dtype in _layout(spec, n):
            arrays[name] = np.ndarray(shape, dtype, buffer=memory, offset=offset)
            offset += _padded(shape, dtype)
        images = {camera.name: arrays[f"image/{camera.name}"] for camera in spec.cameras}
        return cls(images, arrays["state"], arrays["privileged"] if spec.privileged_dim else None)

    @classmethod
    def private(cls, spec: EnvSpec, n: int) -> ObservationArrays:
        """Zeroed arrays in this process's own memory."""
        return cls.over(bytearray(cls.nbytes(spec, n)), spec, n)

    def write(self, slot: int, row: ObservationRow) -> None:
        """Store one environment's observation; numbers that are not finite become 0 (the caller marks it invalid)."""
        for name, image in row.images.items():
            self.images[name][slot] = image
        self.state[slot] = np.nan_to_num(row.state, posinf=0.0, neginf=0.0)
        if self.privileged is not None and row.privileged is not None:
            self.privileged[slot] = np.nan_to_num(row.privileged, posinf=0.0, neginf=0.0)

    def take(self, other: ObservationArrays, slots: Sequence[int], at: Sequence[int]) -> None:
        """Take over the rows ``slots`` of ``other`` as the rows ``at``."""
        for name, image in other.images.items():
            self.images[name][at] = image[slots]
        self.state[at] = other.state[slots]
        if self.privileged is not None and other.privileged is not None:
            self.privileged[at] = other.privileged[slots]

    def observation(self, slots: Sequence[int], tasks: Sequence[str]) -> Observation:
        """A copy of the named rows; ``tasks`` are the instructions of all n environments."""
        rows = list(slots)
        return Observation(
            images={name: image[rows] for name, image in self.images.items()},
            state=self.state[rows],
            task=[tasks[row] for row in rows],
            privileged=None if self.privileged is None else self.privileged[rows],
        )


def _layout(spec: EnvSpec, n: int) -> list[tuple[str, tuple[int, ...], Any]]:
    cameras = [(f"image/{c.name}", (n, c.height, c.width, 3), np.uint8) for c in spec.cameras]
    return [*cameras, ("state", (n, spec.state_dim), np.float32), ("privileged", (n, spec.privileged_dim), np.float32)]


def _padded(shape: tuple[int, ...], dtype: Any) -> int:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass
class Outcomes:
    """Where each of n environments stands: the fields of :class:`rlft.types.ChunkStep` without the observation."""

    rewards: np.ndarray
    n_executed: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray
    success_now: np.ndarray
    invalid: np.ndarray
    metrics: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def fresh(cls, n: int) -> Outcomes:
        """Nothing executed, nothing ended."""
        terminated, truncated, success, success_now, invalid = np.zeros((5, n), dtype=bool)
        rewards, n_executed = np.zeros((n, 0), np.float32), np.zeros(n, np.int64)
        return cls(rewards, n_executed, terminated, truncated, success, success_now, invalid)

    @property
    def ended(self) -> np.ndarray:
        """Bool ``[n]``: has to be reset before it can be stepped."""
        return self.terminated | self.truncated | self.invalid

    def begin_chunk(self, act_steps: int) -> None:
        """Forget the last chunk's rewards; flags stay as they are."""
        n = len(self.n_executed)
        self.rewards, self.n_executed = np.zeros((n, act_steps), np.float32), np.zeros(n, np.int64)

    def begin_episode(self, slot: int) -> None:
        """Clear an environment's flags."""
        for flags in (self.terminated, self.truncated, self.success, self.success_now, self.invalid):
            flags[slot] = False
        for values in self.metrics.values():
            values[slot] = 0.0

    def record(self, slot: int, metrics: dict[str, float]) -> None:
        """Keep an environment's task metrics of its last executed step."""
        for name, value in metrics.items():
            self.metrics.setdefault(name, np.zeros(len(self.n_executed), np.float32))[slot] = value

    def to_json(self) -> dict[str, Any]:
        """Lists of numbers; exact (float32 goes through decimal text of a float64)."""
        return {
            "metrics": {name: values.tolist() for name, values in self.metrics.items()},
            **{name: getattr(self, name).tolist() for name in _FIELDS},
        }

    def take(self, message: dict[str, Any], slots: Sequence[int], at: Sequence[int]) -> None:
        """Take over the entries ``slots`` of another process's outcomes as the entries ``at``."""
        for name in _FIELDS:
            getattr(self, name)[at] = np.asarray(message[name])[slots]
        for name, values in message["metrics"].items():
            mine = self.metrics.setdefault(name, np.zeros(len(self.n_executed), np.float32))
            mine[at] = np.asarray(values)[slots]

    def chunk_step(self, obs: Observation) -> ChunkStep:
        """A copy, with the observation."""
        fields = {name: getattr(self, name).copy() for name in _FIELDS}
        return ChunkStep(obs=obs, metrics={name: v.copy() for name, v in self.metrics.items()}, **fields)


_FIELDS = ("rewards", "n_executed", "terminated", "truncated", "success", "success_now", "invalid")
