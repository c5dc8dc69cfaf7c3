"""Selecting and merging rows of observations, whichever array library they live in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rlft.placement import move
from rlft.types import Array, Observation


def take_rows(obs: Observation, rows: Sequence[int]) -> Observation:
    """The observation of some environments, in the given order."""

    def take(values: Array) -> Array:
        return values[_index(rows, values)]

    return Observation(
        images={name: take(picture) for name, picture in obs.images.items()},
        state=take(obs.state),
        task=[obs.task[i] for i in rows],
        privileged=None if obs.privileged is None else take(obs.privileged),
    )


def put_rows(obs: Observation, rows: Sequence[int], new: Observation) -> Observation:
    """A copy of ``obs`` in which ``rows`` are replaced by the rows of ``new``."""

    def put(old: Array, rows_of_new: Array) -> Array:
        out = old.clone() if isinstance(old, torch.Tensor) else np.array(old)
        out[_index(rows, out)] = rows_of_new
        return out

    task = list(obs.task)
    for i, text in zip(rows, new.task, strict=True):
        task[i] = text
    return Observation(
        images={name: put(picture, new.images[name]) for name, picture in obs.images.items()},
        state=put(obs.state, new.state),
        task=task,
        privileged=None if obs.privileged is None else put(obs.privileged, new.privileged),
    )


def _index(rows: Sequence[int], values: Array) -> Any:
    """Row numbers in the form that indexes these values; on a GPU a list would make it wait for all its work."""
    if isinstance(values, torch.Tensor):
        return move(torch.tensor(rows, dtype=torch.int64), values.device)
    return list(rows)


def indices(mask: Array) -> list[int]:
    """Where a bool ``[E]`` mask (numpy or torch) is set."""
    return [int(i) for i in mask.nonzero()[0]] if isinstance(mask, np.ndarray) else mask.nonzero().flatten().tolist()
