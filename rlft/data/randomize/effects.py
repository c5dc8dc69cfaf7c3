"""The effects, as pure functions: uint8 pictures and parameters per row in, uint8 pictures out.

A row's result depends on that row alone, bit for bit, and is the same on every device: arithmetic is elementwise, one
rounding at a time, and sums are of whole numbers. Products of matrices and library convolutions, whose order of
summation depends on batch and device, are not used.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody knows
from torch import Tensor

YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))
WEIGHT_BITS = 12  # of a blur's weights
HALF_BITS = 4  # kept behind the point between a blur's two passes: 255 * 2^(4 + 12) < 2^24, exact in float32


def brightness(frames: Tensor, delta: Tensor) -> Tensor:
    """Add a value to every channel.

    Args:
        frames: uint8 ``[n, 3, h, w]``.
        delta: float32 ``[n]``, of 255.
    """
    return to_uint8(frames.float() + per_row(delta))


def contrast(frames: Tensor, factor: Tensor) -> Tensor:
    """Stretch values away from the picture's own mean, or towards it.

    Args:
        frames: uint8 ``[n, 3, h, w]``.
        factor: float32 ``[n]``; 1 changes nothing, 0 leaves the mean alone.
    """
    total = frames.flatten(1).sum(1, dtype=torch.int64)
    mean = per_row((total.double() / frames[0].numel()).float())
    return to_uint8((frames.float() - mean) * per_row(factor) + mean)


def colour_matrix(saturation: Tensor, hue: Tensor) -> Tensor:
    """The matrix of :func:`colour`: in YIQ, the two chroma axes are turned and scaled, and luma stays.

    Args:
        saturation: float64 ``[n]``; 1 changes nothing, 0 gives grey.
        hue: float64 ``[n]``, degrees.

    Returns:
        float32 ``[n, 3, 3]``, to be multiplied with columns of RGB.
    """
    to_yiq = torch.tensor(YIQ, dtype=torch.float64)
    luma, first, second = torch.linalg.inv(to_yiq).T  # what each axis of YIQ is in RGB
    straight = torch.outer(first, to_yiq[1]) + torch.outer(second, to_yiq[2])
    across = torch.outer(second, to_yiq[1]) - torch.outer(first, to_yiq[2])
    angle = torch.deg2rad(hue)
    scale = (saturation * angle.cos())[:, None, None], (saturation * angle.sin())[:, None, None]
    return (torch.outer(luma, to_yiq[0]) + scale[0] * straight + scale[1] * across).float()


def colour(frames: Tensor, matrix: Tensor) -> Tensor:
    """Mix the channels.

    Args:
        frames: uint8 ``[n, 3, h, w]``.
        matrix: float32 ``[n, 3, 3]``, for instance :func:`colour_matrix`.
    """
    red, green, blue = frames.float().split(1, dim=1)
    columns = matrix[..., None, None].unbind(2)  # three of [n, 3, 1, 1]
    return to_uint8(red * columns[0] + green * columns[1] + blue * columns[2])


def noise(frames: Tensor, std: Tensor, field: Tensor) -> Tensor:
    """Add noise.

    Args:
        frames: uint8 ``[n, 3, h, w]``.
        std: float32 ``[n]``, of 255.
        field: float32 ``[n, 3, h, w]``, standard normal.
    """
    return to_uint8(frames.float() + field * per_row(std))


def blur_weights(sigma: Tensor, largest: float) -> Tensor:
    """Gaussian weights as whole numbers.

    Args:
        sigma: float64 ``[n]``, pixels; 0 changes nothing.
        largest: the sigma that decides how many weights there are, so that other rows do not.

    Returns:
        float32 ``[n, 2 radius + 1]``, whole numbers whose sum is 4096 exactly.
    """
    radius = max(1, math.ceil(3.0 * largest))
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    bell = torch.exp(-0.5 * (at / sigma[:, None]) ** 2)
    bell[:, radius] = 1.0  # what it is; but a sigma of 0, which leaves 0 on either side, gives no number here
    weights = (bell / bell.sum(1, keepdim=True) * 2**WEIGHT_BITS).round()
    weights[:, radius] += 2**WEIGHT_BITS - weights.sum(1)
    return weights.float()


def blur(frames: Tensor, weights: Tensor) -> Tensor:
    """Blur along columns and rows; the border is repeated.

    Args:
        frames: uint8 ``[n, 3, h, w]``.
        weights: float32 ``[n, taps]``, see :func:`blur_weights`.
    """
    radius = weights.shape[1] // 2
    down = _weighted(F.pad(frames.float(), (0, 0, radius, radius), mode="replicate"), weights, dim=2)
    half = torch.round(down / 2 ** (WEIGHT_BITS - HALF_BITS))
    across = _weighted(F.pad(half, (radius, radius, 0, 0), mode="replicate"), weights, dim=3)
    return to_uint8(across / 2 ** (WEIGHT_BITS + HALF_BITS))


def window(kept: Tensor, start: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where each output pixel's centre lies along one side of :func:`crop`'s window.

    Args:
        kept: float64 ``[n]``, share of the side.
        start: float64 ``[n]``, the window's first edge as a share of the side.
        size: the side, pixels.

    Returns:
        the two neighbours, int64 ``[n, size]`` each, and the upper one's share, float32 ``[n, size]``.
    """
    at = (torch.arange(size, dtype=torch.float64) + 0.5) * kept[:, None] + (start * size)[:, None] - 0.5
    at = at.clamp(0, size - 1)
    low = at.floor()
    return low.long(), (low.long() + 1).clamp(max=size - 1), (at - low).float()


def crop(frames: Tensor, rows: tuple[Tensor, Tensor, Tensor], columns: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Cut out a window of the picture's own proportions and resize it back, bilinearly.

    Args:
        frames: uint8 ``[n, 3, h, w]``.
        rows: :func:`window` along the height.
        columns: :func:`window` along the width.
    """
    batch = torch.arange(len(frames), device=frames.device)[:, None]
    low, high, part = rows
    lines = frames.permute(0, 2, 1, 3)  # [n, h, 3, w]
    part = part[..., None, None]
    blended = lines[batch, low].float() * (1.0 - part) + lines[batch, high].float() * part
    low, high, part = columns
    lines = blended.permute(0, 3, 2, 1)  # [n, w, 3, h]
    part = part[..., None, None]
    out = lines[batch, low] * (1.0 - part) + lines[batch, high] * part
    return to_uint8(out.permute(0, 2, 3, 1).contiguous())


def shift(frames: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Move the picture by whole pixels; the border is repeated.

    Args:
        frames: uint8 ``[n, 3, h, w]``.
        down: int64 ``[n]``, pixels.
        right: int64 ``[n]``, pixels.
    """
    _, _, h, w = frames.shape
    device = frames.device
    y = (torch.arange(h, device=device) - down[:, None]).clamp(0, h - 1)
    x = (torch.arange(w, device=device) - right[:, None]).clamp(0, w - 1)
    batch = torch.arange(len(frames), device=device)[:, None, None]
    moved = frames.permute(0, 2, 3, 1)[batch, y[:, :, None], x[:, None, :]]  # [n, h, w, 3]
    return moved.permute(0, 3, 1, 2).contiguous()


def blend(frames: Tensor, others: Tensor, ratio: Tensor) -> Tensor:
    """Blend another picture over each.

    Args:
        frames: uint8 ``[n, 3, h, w]``.
        others: uint8 ``[n, 3, h, w]``.
        ratio: float32 ``[n]``, share of the other picture.
    """
    share = per_row(ratio)
    return to_uint8(frames.float() * (1.0 - share) + others.float() * share)


def per_row(values: Tensor) -> Tensor:
    """``[n]`` -> ``[n, 1, 1, 1]``."""
    return values[:, None, None, None]


def to_uint8(frames: Tensor) -> Tensor:
    """Round to the nearest value that a pixel can have."""
    return frames.round_().clamp_(0, 255).to(torch.uint8)


def _weighted(padded: Tensor, weights: Tensor, dim: int) -> Tensor:
    """The weighted sum of neighbours along a side; exact, because all terms are whole numbers below 2^24."""
    taps = weights.shape[1]
    size = padded.shape[dim] - taps + 1
    out = padded.narrow(dim, 0, size) * per_row(weights[:, 0])
    for k in range(1, taps):
        out.addcmul_(padded.narrow(dim, k, size), per_row(weights[:, k]))
    return out
