"""What simulators report, whichever array library it lives in: rows of observations, and what a chunk came to."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlft.placement import move, to_numpy, together
from rlft.types import Array, ChunkStep, Observation, map_rows


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


def on_host(step: ChunkStep, actions: Array) -> tuple[ChunkStep, np.ndarray]:
    """The numbers of a chunk, and the actions ``[n, A, d]`` sent, as numpy arrays; its observation stays where it is.

    A GPU simulator is waited for once, one on the CPU never.
    """
    names = [x.name for x in fields(step) if x.name not in ("obs", "metrics")]
    arrays = [actions, *(getattr(step, name) for name in names), *step.metrics.values()]
    if any(isinstance(x, Tensor) for x in arrays):
        arrays = _read_together(arrays)
    sent, *rest = map(np.asarray, arrays)
    metrics = dict(zip(step.metrics, rest[len(names) :], strict=True))
    return ChunkStep(step.obs, **dict(zip(names, rest, strict=False)), metrics=metrics), sent


def _read_together(arrays: Sequence[Array]) -> list[np.ndarray]:
    tensors = together([torch.as_tensor(x) for x in arrays])
    # float32 holds counts below 2^24 exactly, and a chunk is shorter.
    packed = to_numpy(torch.cat([x.reshape(len(x), -1).float() for x in tensors], dim=1))
    parts = np.split(packed, np.cumsum([x[0].numel() for x in tensors])[:-1], axis=1)
    types = [str(x.dtype).removeprefix("torch.") for x in tensors]
    return [part.reshape(x.shape).astype(name) for part, x, name in zip(parts, tensors, types, strict=True)]
