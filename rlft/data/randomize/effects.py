"""The effects: uint8 images ``[n, 3, h, w]`` and a parameter per row ``[n]`` in, uint8 images out.

torchvision's functions take one parameter for a whole batch, and its hue copies a table to the GPU at every call, so
they serve where rows have none. Arithmetic is elementwise: a row's result does not depend on the batch it stands in.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody knows
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale


def brightness(frames: Tensor, delta: Tensor) -> Tensor:
    """Add a value, of 255, to every channel."""
    return to_uint8(frames + per_row(delta))


def contrast(frames: Tensor, factor: Tensor) -> Tensor:
    """Stretch values away from the image's own mean; a factor of 1 changes nothing, 0 leaves the mean alone."""
    total = frames.flatten(1).sum(1, dtype=torch.int64)  # whole numbers: exact in any order
    return to_uint8(torch.lerp(per_row(total / frames[0].numel()), frames.float(), per_row(factor)))


def saturation(frames: Tensor, factor: Tensor) -> Tensor:
    """Stretch colours away from grey; a factor of 1 changes nothing, 0 gives grey."""
    return to_uint8(torch.lerp(rgb_to_grayscale(frames.float()), frames.float(), per_row(factor)))


def hue(frames: Tensor, degrees: Tensor) -> Tensor:
    """Turn colours about the grey axis of RGB; 120 degrees make red green. A pixel's mean stays."""
    angle, floats = torch.deg2rad(per_row(degrees)), frames.float()
    before, after = floats.roll(1, 1), floats.roll(-1, 1)  # the other two channels of each
    grey = (floats + before + after) / 3
    turned = angle.cos() * (floats - grey) + angle.sin() / math.sqrt(3) * (before - after)
    return to_uint8(grey + turned)


def noise(frames: Tensor, std: Tensor, field: Tensor) -> Tensor:
    """Add a standard normal field ``[n, 3, h, w]`` times std, of 255."""
    return to_uint8(frames + field * per_row(std))


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


def blend(frames: Tensor, others: Tensor, ratio: Tensor) -> Tensor:
    """Blend another image over each; ratio is its share."""
    return to_uint8(torch.lerp(frames.float(), others.float(), per_row(ratio)))


def per_row(values: Tensor) -> Tensor:
    """``[..., 1, 1, 1]`` float32 of ``[...]``, to be multiplied with images."""
    return values.float()[..., None, None, None]


def to_uint8(frames: Tensor) -> Tensor:
    """Round to the nearest value that a pixel can have."""
    return frames.round_().clamp_(0, 255).to(torch.uint8)
