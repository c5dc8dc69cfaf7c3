"""From what a camera reports to what a network sees: checked, resized, stacked; for whichever policy looks at it."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody knows
from torch import Tensor

from rlft.placement import together
from rlft.types import Array


def resize_with_pad(frames: Tensor, size: int) -> Tensor:
    """Fit frames into a square without distortion: antialiased, centred, padded with black.

    uint8 ``[n, 3, height, width]`` -> ``[n, 3, size, size]``, pixels; the input itself where it already fits.
    """
    height, width = frames.shape[-2:]
    if height == size and width == size:
        return frames
    ratio = max(height, width) / size
    inner = (max(1, int(height / ratio)), max(1, int(width / ratio)))
    if inner != (height, width):
        floats = F.interpolate(frames.float(), size=inner, mode="bilinear", align_corners=False, antialias=True)
        frames = floats.round_().clamp_(0, 255).to(torch.uint8)
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    return F.pad(frames, (left, size - inner[1] - left, top, size - inner[0] - top))


def stack_cameras(images: Mapping[str, Array], cameras: Sequence[str], size: int, *, rows: int) -> Tensor:
    """Check, resize and stack the cameras that the policy reads, in its order, where they are; others are left out.

    Images are uint8 ``[n, height, width, 3]``, numpy or torch, by camera; n is ``rows``.

    Returns:
        uint8 ``[n, V, 3, size, size]``; on the host, unless a camera's are on a GPU: then there.

    Raises:
        ValueError: a camera is missing, or its type or layout is wrong.
    """
    if missing := [name for name in cameras if name not in images]:
        there = f"the observation, which has {sorted(images)}; check env.cameras."
        raise ValueError(f"Cameras {missing} are missing from {there}")
    if not cameras:
        return torch.zeros((rows, 0, 3, size, size), dtype=torch.uint8)
    stacked = []
    for name in cameras:
        frames = torch.as_tensor(images[name])
        _check_frames(name, frames, rows)
        stacked.append(resize_with_pad(frames.movedim(-1, 1), size))
    return torch.stack(together(stacked), dim=1)


def _check_frames(name: str, frames: Tensor, rows: int) -> None:
    wanted = f"wanted uint8 [{rows}, height, width, 3]"
    got = f"Camera {name!r}: got {str(frames.dtype).removeprefix('torch.')} {list(frames.shape)}"
    if frames.dtype != torch.uint8:
        why = "Floats are refused because [0, 1] and [0, 255] cannot be told apart."
        raise ValueError(f"{got}, {wanted}. {why}")
    if frames.ndim == 4 and frames.shape[1] == 3 and frames.shape[-1] != 3:
        raise ValueError(f"{got}, channels first; {wanted}, channels last.")
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) != rows:
        raise ValueError(f"{got}; {wanted}.")
