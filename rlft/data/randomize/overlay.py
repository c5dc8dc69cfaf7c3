"""Another background, in pictures that are composites of a known background picture and a rendered foreground.

Where nothing else is known of the foreground, the pictures themselves tell: a pixel of the background has the colour
that the known background has there, up to what video compression made of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody knows
from torch import Tensor

STRIDE = 4  # the grid on which known backgrounds are compared, pixels
WINDOW = 5  # the side of the majority filter, pixels; odd


@dataclass(frozen=True)
class Background:
    """What was found in n pictures.

    Attributes:
        best: int64 ``[n]``, which known background fits best.
        share: float32 ``[n]``, the share of pixels that fit it.
        mask: bool ``[n, 1, h, w]``, where the background is.
    """

    best: Tensor
    share: Tensor
    mask: Tensor


def find_background(frames: Tensor, known: Tensor, tolerance: int) -> Background:
    """Compare pictures with known backgrounds.

    Args:
        frames: uint8 ``[n, 3, h, w]``.
        known: uint8 ``[K, 3, h, w]``.
        tolerance: largest difference of a channel, of 255.
    """
    coarse = frames[..., ::STRIDE, ::STRIDE]
    counts = [_fits(coarse, one[..., ::STRIDE, ::STRIDE], tolerance).flatten(1).sum(1) for one in known]
    best = torch.stack(counts).argmax(0)
    fits = _fits(frames, known[best], tolerance)
    share = fits.flatten(1).sum(1).float() / fits[0].numel()
    return Background(best, share, majority(fits))


def majority(mask: Tensor) -> Tensor:
    """What most pixels of a small window say; bool ``[n, 1, h, w]``, the border is repeated."""
    edge = WINDOW // 2
    votes = F.avg_pool2d(F.pad(mask.float(), (edge,) * 4, mode="replicate"), WINDOW, stride=1)
    return votes > 0.5


def swap(frames: Tensor, found: Background, replacements: Tensor, min_match: float) -> Tensor:
    """Put other backgrounds where the background is.

    Args:
        frames: uint8 ``[n, 3, h, w]``.
        found: of these pictures.
        replacements: uint8 ``[n, 3, h, w]``.
        min_match: rows with a smaller share of background stay as they are.
    """
    sure = (found.share >= min_match)[:, None, None, None]
    return torch.where(found.mask & sure, replacements, frames)


def _fits(frames: Tensor, known: Tensor, tolerance: int) -> Tensor:
    apart = torch.maximum(frames, known) - torch.minimum(frames, known)
    return (apart <= tolerance).all(dim=-3, keepdim=True)
