"""Selecting and merging rows of observations, whichever array library they live in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rlft.types import Array, Observation


def take_rows(obs: Observation, rows: Sequence[int]) -> Observation:
    """The observation of some environments, in the given order."""
    index = list(rows)
    return Observation(
        images={name: picture[index] for name, picture in obs.images.items()},
        state=obs.state[index],
        task=[obs.task[i] for i in index],
        privileged=None if obs.privileged is None else obs.privileged[index],
    )


def put_rows(obs: Observation, rows: Sequence[int], new: Observation) -> Observation:
    """A copy of ``obs`` in which ``rows`` are replaced by the rows of ``new``."""
    index = list(rows)

    def put(old: Array, rows_of_new: Array) -> Array:
        out = old.clone() if isinstance(old, torch.Tensor) else np.array(old)
        out[index] = rows_of_new
        return out

    task = list(obs.task)
    for i, text in zip(index, new.task, strict=True):
        task[i] = text
    return Observation(
        images={name: put(picture, new.images[name]) for name, picture in obs.images.items()},
        state=put(obs.state, new.state),
        task=task,
        privileged=None if obs.privileged is None else put(obs.privileged, new.privileged),
    )


def indices(mask: Array) -> list[int]:
    """Where a bool ``[E]`` mask (numpy or torch) is set."""
    return [int(i) for i in mask.nonzero()[0]] if isinstance(mask, np.ndarray) else mask.nonzero().flatten().tolist()
