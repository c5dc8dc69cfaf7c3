"""Another background, in images that are composites of a known background image and a rendered foreground.

Where nothing else is known of the foreground, the images themselves tell: a pixel of the background has the colour
that the known background has there, up to what video compression made of it. How much that is differs from image to
image and is read from each: images as rendered are compared almost exactly, for a foreground of nearly the
background's colour must stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody knows
from torch import Tensor

STRIDE = 4  # the grid on which known backgrounds are compared, pixels
WINDOW = 5  # the side of the majority filter, pixels; odd
EXACT, LOOSER = 2, 2  # tolerance where nothing was compressed, of 255; what is added per value of the median difference


@dataclass(frozen=True)
class Background:
    """What was found in n images."""

    best: Tensor  # int64 [n], which known background fits best
    tolerance: Tensor  # uint8 [n], the difference up to which a pixel fits it
    share: Tensor  # float32 [n], the share of pixels that fit it
    mask: Tensor  # bool [n, 1, h, w], where the background is


def find_background(frames: Tensor, known: Tensor, tolerance: int) -> Background:
    """Compare images, uint8 ``[n, 3, h, w]``, with known backgrounds, uint8 ``[K, 3, h, w]``.

    ``tolerance`` is the largest that an image may get, of 255.
    """
    coarse = frames[..., ::STRIDE, ::STRIDE]
    counts = [(_apart(coarse, one[..., ::STRIDE, ::STRIDE]) <= tolerance).flatten(1).sum(1) for one in known]
    best = torch.stack(counts).argmax(0)
    apart = _apart(frames, known[best])
    typical = apart[..., ::STRIDE, ::STRIDE].flatten(1).int().median(1).values
    own = (EXACT + LOOSER * typical).clamp(max=tolerance).to(torch.uint8)
    fits = apart <= own[:, None, None, None]
    share = fits.flatten(1).sum(1).float() / fits[0].numel()
    return Background(best, own, share, majority(fits))


def majority(mask: Tensor) -> Tensor:
    """What most pixels of a small window say; bool ``[n, 1, h, w]``, the border is repeated."""
    votes = F.avg_pool2d(F.pad(mask.float(), (WINDOW // 2,) * 4, mode="replicate"), WINDOW, stride=1)
    return votes > 0.5


def swap(frames: Tensor, found: Background, replacements: Tensor, min_match: float) -> tuple[Tensor, Tensor]:
    """Put other backgrounds where the background is; rows with a smaller share of it than min_match stay.

    Returns:
        uint8 ``[n, 3, h, w]``, and how many pixels of each were swapped, int64 ``[n]``; 0: its background is not known.
    """
    where = found.mask & (found.share >= min_match)[:, None, None, None]
    return torch.where(where, replacements, frames), where.flatten(1).sum(1)


def _apart(frames: Tensor, known: Tensor) -> Tensor:
    """How far the furthest channel is, uint8 ``[n, 1, h, w]``."""
    return (torch.maximum(frames, known) - torch.minimum(frames, known)).amax(dim=-3, keepdim=True)
