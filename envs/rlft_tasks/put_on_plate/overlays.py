"""Photographs of real tables behind the simulated robot, and textures blended over it. Imported lazily, with torch.

E environments, images uint8 ``[E, h, w, 3]``. The blends are the published ones, stated in the camera's own pixels.
Nothing is read back from the device: boxes are tensors, and a texture is looked up at every pixel.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from rlft_envs.images import fit_image
from rlft_tasks.put_on_plate.library import Table
from rlft_tasks.put_on_plate.variants import Variant

BLOCK = 16  # environments whose textures are blended at once: float images of all of them would fill gigabytes

kept_image = lru_cache(maxsize=64)(fit_image)  # a split has 21 tables, and every reset asks again: not to be written to


class Backdrop:
    """What stands behind and over E environments in one camera; the variant says how a texture is blended in."""

    def __init__(self, variant: Variant, num_envs: int, height: int, width: int, device: torch.device) -> None:
        self._variant, self._size = variant, (height, width)
        scale = {None: 0, "box": 1, "whole": 2}[variant.texture_mode]
        self._texture_size = (scale * height, scale * width)
        self._photographs = torch.zeros(num_envs, *self._size, 3, dtype=torch.uint8, device=device)
        self._textures = torch.zeros(num_envs, *self._texture_size, 3, dtype=torch.uint8, device=device)
        self._mix = torch.zeros(num_envs, device=device)

    def show(self, env_idx: Sequence[int], tables: Sequence[Table], textures: Sequence[Table | None]) -> None:
        """Give each of these environments its photograph, and its texture: all of them have one, or none."""
        device = self._mix.device
        ids = torch.as_tensor(env_idx, device=device)
        self._photographs[ids] = _images([table.image for table in tables], self._size).to(device)
        if known := [texture for texture in textures if texture is not None]:
            self._textures[ids] = _images([texture.texture for texture in known], self._texture_size).to(device)
            self._mix[ids] = torch.tensor([t.mix * self._variant.texture_ratio for t in known]).to(device)

    def compose(self, rgb: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        """The image: uint8 ``[E, h, w, 3]``, from what was rendered and where it is seen, bool ``[E, h, w]``."""
        photographs = self._photographs.to(rgb.device)
        if self._variant.texture_mode is None:
            return overlay(rgb, photographs, foreground)
        blend = blend_box if self._variant.texture_mode == "box" else blend_whole
        everything = (rgb, photographs, foreground, self._textures.to(rgb.device), self._mix.to(rgb.device))
        return torch.cat([blend(*part) for part in zip(*(rows.split(BLOCK) for rows in everything))])


def _images(paths: Sequence[Path], size: tuple[int, int]) -> torch.Tensor:
    return torch.from_numpy(np.stack([kept_image(path, *size) for path in paths]))


def overlay(rgb: torch.Tensor, background: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """The photograph, uint8 ``[E, h, w, 3]`` as what was rendered, wherever nothing simulated is seen.

    The foreground, bool ``[E, h, w]``, is the robot and the objects.
    """
    return torch.where(foreground[..., None], rgb, background)


def blend_box(
    rgb: torch.Tensor, background: torch.Tensor, foreground: torch.Tensor, texture: torch.Tensor, mix: torch.Tensor
) -> torch.Tensor:
    """:func:`overlay`, with a texture over the foreground, stretched to the foreground's bounding box.

    The texture is uint8 ``[E, h, w, 3]``; ``mix`` is its weight, float ``[E]``, 0..1.
    """
    h, w = foreground.shape[1:]
    top, bottom, left, right = boxes(foreground)
    y, x = _stretched(h, top, bottom)[:, :, None], _stretched(w, left, right)[:, None, :]
    grid, source = torch.stack(torch.broadcast_tensors(x, y), dim=3), texture.permute(0, 3, 1, 2).float()
    found = torch.nn.functional.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)
    stretched = found.permute(0, 2, 3, 1)
    share = mix[:, None, None, None]
    blended = stretched * share + rgb * (1 - share)
    return overlay(blended.clamp(0, 255).to(torch.uint8), background, foreground)


def blend_whole(
    rgb: torch.Tensor, background: torch.Tensor, foreground: torch.Tensor, texture: torch.Tensor, mix: torch.Tensor
) -> torch.Tensor:
    """:func:`overlay`, with a texture over everything; the window into the texture follows the foreground.

    The texture is uint8 ``[E, 2h, 2w, 3]``; ``mix`` is its weight, float ``[E]``, 0..1.
    """
    out = overlay(rgb, background, foreground)
    h, w = foreground.shape[1:]
    top, bottom, left, right = boxes(foreground)
    y = _middle(top, bottom)[:, None] + torch.arange(h, device=rgb.device)
    x = _middle(left, right)[:, None] + torch.arange(w, device=rgb.device)
    e = torch.arange(len(rgb), device=rgb.device)[:, None, None]
    share = mix[:, None, None, None]
    blended = out * (1 - share) + texture[e, y[:, :, None], x[:, None, :]] * share
    return torch.where((bottom > top)[:, None, None, None], blended.clamp(0, 255).to(torch.uint8), out)


def boxes(foreground: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Top, bottom, left and right of what is seen, int ``[E]`` each; half-open, pixels.

    Where nothing is seen the bottom is 0 and the top is the image's height, and so to the side.
    """
    return *_extent(foreground.any(dim=2)), *_extent(foreground.any(dim=1))


def _middle(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return (low + high - 1).div(2, rounding_mode="floor").clamp(min=1)


def _extent(seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First, and one past the last, of what is True in each row of ``[E, n]``."""
    n = seen.shape[1]
    at = torch.arange(n, device=seen.device)
    return torch.where(seen, at, n).amin(dim=1), torch.where(seen, at + 1, 0).amax(dim=1)


def _stretched(n: int, start: torch.Tensor, stop: torch.Tensor) -> torch.Tensor:
    """Where each of n pixels in a row looks in a texture that is stretched over ``start..stop``: float ``[E, n]``.

    As ``grid_sample`` counts without aligned corners: -1 is the texture's first edge, 1 its last.
    """
    place = torch.arange(n, device=start.device) + 0.5
    return (place - start[:, None]) / (stop - start).clamp(min=1)[:, None] * 2 - 1
