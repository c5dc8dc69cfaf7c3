"""The effects: uint8 images ``[n, 3, h, w]`` and a parameter per row ``[n]`` in, uint8 images out.

torchvision's functions take one parameter for a whole batch, and its hue copies a table to the GPU at every call, so
they serve where rows have none. Arithmetic is elementwise: a row's result does not depend on the batch it stands in.

Another background needs to know where the old one is. The images themselves tell: a pixel of the background has the
colour that the known background has there, up to what video compression made of it. How much that is differs from image
to image and is read from each: images as rendered are compared almost exactly, for a foreground of nearly the
background's colour must stay.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody knows
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

STRIDE = 4  # the grid on which known backgrounds are compared, pixels
WINDOW = 5  # the side of the majority filter, pixels; odd
EXACT, LOOSER = 2, 2  # tolerance where nothing was compressed, of 255; what is added per value of the median difference


def add(frames: Tensor, change: Tensor) -> Tensor:
    """Add values, of 255, to every channel."""
    return to_uint8(frames + change)


def mix(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """``first`` at a share of 0, ``second`` at 1; beyond 1 away from the first."""
    return to_uint8(torch.lerp(first.float(), second.float(), per_row(share)))


def contrast(frames: Tensor, factor: Tensor) -> Tensor:
    """Stretch values away from the image's own mean; a factor of 1 changes nothing, 0 leaves the mean alone."""
    total = frames.flatten(1).sum(1, dtype=torch.int64)  # whole numbers: exact in any order
    return mix(per_row(total / frames[0].numel()), frames, factor)


def saturation(frames: Tensor, factor: Tensor) -> Tensor:
    """Stretch colours away from grey; a factor of 1 changes nothing, 0 gives grey."""
    return mix(rgb_to_grayscale(frames.float()), frames, factor)


def hue(frames: Tensor, degrees: Tensor) -> Tensor:
    """Turn colours about the grey axis of RGB; 120 degrees make red green. A pixel's mean stays."""
    angle, floats = torch.deg2rad(per_row(degrees)), frames.float()
    before, after = floats.roll(1, 1), floats.roll(-1, 1)  # the other two channels of each
    grey = (floats + before + after) / 3
    turned = angle.cos() * (floats - grey) + angle.sin() / math.sqrt(3) * (before - after)
    return to_uint8(grey + turned)


def blur(frames: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Gaussian blur, the border repeated; sigma and the largest that a row may have, in pixels; 0 changes nothing."""
    radius = max(1, math.ceil(3.0 * largest))  # by the largest, so that rows do not depend on each other
    at = torch.arange(-radius, radius + 1, device=frames.device)
    bell = torch.exp(-0.5 * (at / sigma[:, None].clamp(min=1e-3)) ** 2)
    weights = per_row(bell / bell.sum(1, keepdim=True)).unbind(1)
    out = F.pad(frames.float(), (radius,) * 4, mode="replicate")
    for dim in (2, 3):
        first, *others = (w * out.narrow(dim, k, frames.shape[dim]) for k, w in enumerate(weights))
        out = sum(others, first)
    return to_uint8(out)


def place(frames: Tensor, kept: Tensor, start: tuple[Tensor, Tensor], moved: tuple[Tensor, Tensor]) -> Tensor:
    """Cut a window out, resize it back, and move the result by whole pixels; the border is repeated.

    The window keeps a share of either side from ``start`` on, upper and left edge as shares of height and width;
    ``moved`` is pixels down and right.
    """
    sides = []
    for first, by, size in zip(start, moved, frames.shape[-2:]):
        centre = (torch.arange(size, device=frames.device) - by[:, None]).clamp(0, size - 1) + 0.5
        at = centre / size * kept[:, None] + first[:, None]
        sides.append(2 * at.float() - 1)  # grid_sample: -1 and 1 are the edges
    (y, x), (height, width) = sides, frames.shape[-2:]
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1)
    return to_uint8(F.grid_sample(frames.float(), grid, padding_mode="border", align_corners=False))


def per_row(values: Tensor) -> Tensor:
    """``[..., 1, 1, 1]`` float32 of ``[...]``, to be multiplied with images."""
    return values.float()[..., None, None, None]


def to_uint8(frames: Tensor) -> Tensor:
    """Round to the nearest value that a pixel can have."""
    return frames.round_().clamp_(0, 255).to(torch.uint8)


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

    Gives uint8 ``[n, 3, h, w]``, and how many pixels of each were swapped, int64 ``[n]``; 0: its background is unknown.
    """
    where = found.mask & (found.share >= min_match)[:, None, None, None]
    return torch.where(where, replacements, frames), where.flatten(1).sum(1)


def _apart(frames: Tensor, known: Tensor) -> Tensor:
    """How far the furthest channel is, uint8 ``[n, 1, h, w]``."""
    return (torch.maximum(frames, known) - torch.minimum(frames, known)).amax(dim=-3, keepdim=True)
