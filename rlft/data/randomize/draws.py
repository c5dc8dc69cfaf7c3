"""What is drawn for an image: named by counters, on the CPU, one row at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlft.seeding import generator_for

type Name = tuple[int, ...]  # iteration, environment and episode, or step and row; then the camera

SLOTS = (  # the place of each draw, so that switching an effect on leaves the draws of all others as they were
    "on", "brightness", "contrast", "saturation", "hue", "noise", "noise_at", "blur", "crop", "crop_top", "crop_left",
    "down", "right", "texture", "ratio", "overlay",
)  # fmt: skip


def draw(seed: int, purpose: str, names: Sequence[Name]) -> Tensor:
    """Uniform numbers in [0, 1), float64 ``[n, slots]``; the same seed, purpose and name give the same ones."""
    streams = (generator_for(seed, purpose, *name) for name in names)
    return torch.stack([torch.rand(len(SLOTS), dtype=torch.float64, generator=stream) for stream in streams])


def around_zero(u: Tensor, most: float) -> Tensor:
    """[0, 1) -> [-most, most)."""
    return most * (2.0 * u - 1.0)


def pick(u: Tensor, count: int) -> Tensor:
    """Evenly one of ``count`` things per row: ``[n]`` in [0, 1) -> int64 ``[n]``."""
    return (u * count).long()
