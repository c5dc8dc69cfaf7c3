"""Selecting and merging rows of observations, whichever array library they live in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rlft.placement import move
from rlft.types import Array, Observation, map_rows


def take_rows(obs: Observation, rows: Sequence[int]) -> Observation:
    """The observation of some environments, in the given order."""
    return map_rows(lambda values: values[_index(rows, values)], obs)


def put_rows(obs: Observation, rows: Sequence[int], new: Observation) -> Observation:
    """A copy of ``obs`` in which ``rows`` are replaced by the rows of ``new``."""

    def put(old: Array, rows_of_new: Array) -> Array:
        out = old.clone() if isinstance(old, torch.Tensor) else np.array(old)
        out[_index(rows, out)] = rows_of_new
        return out

    return map_rows(put, obs, new)


def _index(rows: Sequence[int], values: Array) -> Any:
    """Row numbers in the form that indexes these values; on a GPU a list would make it wait for all its work."""
    if isinstance(values, torch.Tensor):
        return move(torch.tensor(rows, dtype=torch.int64), values.device)
    return list(rows)


def indices(mask: Array) -> list[int]:
    """Where a bool ``[E]`` mask (numpy or torch) is set."""
    return [int(i) for i in mask.nonzero()[0]] if isinstance(mask, np.ndarray) else mask.nonzero().flatten().tolist()
