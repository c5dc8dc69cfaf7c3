"""What a chunk came to, on the host: read from a GPU simulator in one transfer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rlft.placement import move, to_numpy
from rlft.types import Array, ChunkStep

FLAGS = ("terminated", "truncated", "success", "invalid")


@dataclass(frozen=True)
class Outcome:
    """The numbers of a :class:`rlft.types.ChunkStep` and the actions that led to them, as numpy arrays."""

    actions: np.ndarray  # float32 `[n, A, d]`, controller units, as sent
    rewards: np.ndarray  # float32 `[n, A]`
    n_executed: np.ndarray  # int64 `[n]`
    terminated: np.ndarray  # bool `[n]`
    truncated: np.ndarray  # bool `[n]`
    success: np.ndarray  # bool `[n]`, at any step of the episode so far
    invalid: np.ndarray  # bool `[n]`

    @classmethod
    def of(cls, step: ChunkStep, actions: Array) -> Outcome:
        """Read a chunk; a simulator on the GPU is waited for once, one on the CPU not at all.

        Args:
            step: of n environments; numpy arrays, or tensors on one device.
            actions: ``[n, A, d]``, as they were sent.
        """
        flags = {name: getattr(step, name) for name in FLAGS}
        if not isinstance(step.rewards, torch.Tensor):
            return cls(np.asarray(actions, np.float32), step.rewards, step.n_executed, **flags)
        n, A, d = actions.shape
        # float32 holds counts below 2^24 exactly, and a chunk is shorter.
        columns = [move(actions, step.rewards.device).flatten(1), step.rewards]
        columns += [column[:, None] for column in (step.n_executed, *flags.values())]
        packed = torch.cat([column.float() for column in columns], dim=1)
        sent, rewards, counts = np.split(to_numpy(packed), [A * d, A * d + A], axis=1)
        n_executed, *bits = counts.T
        flags = {name: column.astype(bool) for name, column in zip(FLAGS, bits, strict=True)}
        return cls(sent.reshape(n, A, d), rewards, n_executed.astype(np.int64), **flags)

    @property
    def ended(self) -> np.ndarray:
        """Bool ``[n]``: the environment has to be reset before it can be stepped again."""
        return self.terminated | self.truncated | self.invalid
