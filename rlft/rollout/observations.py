"""What simulators report, whichever array library it lives in: rows of observations, and what a chunk came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlft.placement import move, to_numpy
from rlft.types import Array, ChunkStep, Observation, map_rows

FLAGS = ("terminated", "truncated", "success", "invalid")


def take_rows(obs: Observation, rows: Sequence[int]) -> Observation:
    """The observation of some environments, in the given order."""
    return map_rows(lambda values: values[_index(rows, values)], obs)


def put_rows(obs: Observation, rows: Sequence[int], new: Observation) -> Observation:
    """A copy of ``obs`` in which ``rows`` are replaced by the rows of ``new``."""

    def put(old: Array, rows_of_new: Array) -> Array:
        out = old.clone() if isinstance(old, Tensor) else np.array(old)
        out[_index(rows, out)] = rows_of_new
        return out

    return map_rows(put, obs, new)


def _index(rows: Sequence[int], values: Array) -> Any:
    """Row numbers in the form that indexes these values; on a GPU a list would make it wait for all its work."""
    if isinstance(values, Tensor):
        return move(torch.tensor(rows, dtype=torch.int64), values.device)
    return list(rows)


def indices(mask: Array) -> list[int]:
    """Where a bool ``[E]`` mask (numpy or torch) is set."""
    return [int(i) for i in mask.nonzero()[0]] if isinstance(mask, np.ndarray) else mask.nonzero().flatten().tolist()


@dataclass(frozen=True)
class ChunkOutcome:
    """The numbers of a :class:`rlft.types.ChunkStep` and the actions that led to them, as numpy arrays on the host."""

    actions: np.ndarray  # float32 `[n, A, d]`, controller units, as sent
    rewards: np.ndarray  # float32 `[n, A]`
    n_executed: np.ndarray  # int64 `[n]`
    terminated: np.ndarray  # bool `[n]`
    truncated: np.ndarray  # bool `[n]`
    success: np.ndarray  # bool `[n]`, at any step of the episode so far
    invalid: np.ndarray  # bool `[n]`

    @classmethod
    def of(cls, step: ChunkStep, actions: Array) -> ChunkOutcome:
        """Read a chunk and the actions ``[n, A, d]`` sent; a GPU simulator is waited for once, one on the CPU never."""
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
