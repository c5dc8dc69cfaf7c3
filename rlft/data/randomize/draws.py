"""What is drawn for a picture: named by counters, on the CPU, one row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlft.config.randomization import DomainRandomizationConfig
from rlft.seeding import generator_for

RANGE = 255.0
SLOTS = (  # the place of each draw, so that switching an effect on leaves the draws of all others as they were
    "on", "brightness", "contrast", "saturation", "hue", "noise", "noise_at", "blur", "crop", "crop_top", "crop_left",
    "down", "right", "texture", "ratio", "overlay",
)  # fmt: skip


@dataclass(frozen=True)
class Draws:
    """The parameters of n pictures, ``[n]`` each, on the CPU; float64 but for ``on``.

    Attributes:
        on: bool, whether the picture is changed at all.
        brightness: added value, of 255.
        contrast: factor.
        saturation: factor.
        hue: degrees.
        noise: std, of 255.
        noise_at: where the noise begins on the tape, in [0, 1).
        blur: std, pixels.
        kept: share of either side that a crop keeps.
        top: upper edge of the crop, share of the height.
        left: left edge of the crop, share of the width.
        down: shift, share of the height.
        right: shift, share of the width.
        texture: which texture, in [0, 1).
        ratio: its share.
        overlay: which background, in [0, 1).
    """

    on: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    noise: Tensor
    noise_at: Tensor
    blur: Tensor
    kept: Tensor
    top: Tensor
    left: Tensor
    down: Tensor
    right: Tensor
    texture: Tensor
    ratio: Tensor
    overlay: Tensor


def draw(cfg: DomainRandomizationConfig, seed: int, purpose: str, names: Sequence[Sequence[int]]) -> Draws:
    """Draw the parameters of n pictures.

    Args:
        cfg: the ranges.
        seed: the run's seed.
        purpose: what the pictures are for.
        names: n tuples of counters; the same name gives the same parameters.
    """
    rows = [
        torch.rand(len(SLOTS), dtype=torch.float64, generator=generator_for(seed, purpose, *name)) for name in names
    ]
    u = dict(zip(SLOTS, torch.stack(rows).unbind(1), strict=True))
    cut = cfg.crop * u["crop"]
    return Draws(
        on=u["on"] < cfg.probability,
        brightness=RANGE * cfg.brightness * _around_zero(u["brightness"]),
        contrast=1.0 + cfg.contrast * _around_zero(u["contrast"]),
        saturation=1.0 + cfg.saturation * _around_zero(u["saturation"]),
        hue=cfg.hue * _around_zero(u["hue"]),
        noise=RANGE * cfg.noise * u["noise"],
        noise_at=u["noise_at"],
        blur=cfg.blur * u["blur"],
        kept=1.0 - cut,
        top=cut * u["crop_top"],
        left=cut * u["crop_left"],
        down=cfg.shift * _around_zero(u["down"]),
        right=cfg.shift * _around_zero(u["right"]),
        texture=u["texture"],
        ratio=(0.0 if cfg.texture is None else cfg.texture.ratio) * u["ratio"],
        overlay=u["overlay"],
    )


def pick(u: Tensor, count: int) -> Tensor:
    """Evenly one of ``count`` things per row: ``[n]`` in [0, 1) -> int64 ``[n]``."""
    return (u * count).long()


def _around_zero(u: Tensor) -> Tensor:
    return 2.0 * u - 1.0
