"""Pictures of real tables behind the simulated robot, and textures blended over it. Imported lazily, with torch.

E environments, pictures ``[E, h, w, 3]``. The blends are the published ones, stated in the camera's own pixels.
"""

from __future__ import annotations

import torch

from rlft_envs.pictures import fit_picture
from rlft_envs.put_on_plate.library import Table
from rlft_envs.put_on_plate.variants import Variant


class Backdrop:
    """What stands behind and over E environments in one camera.

    Args:
        variant: says whether and how a texture is blended in.
        num_envs: E.
        height, width: of the camera, pixels.
        device: where pictures are composed.
    """

    def __init__(self, variant: Variant, num_envs: int, height: int, width: int, device: torch.device) -> None:
        self._variant, self._size = variant, (height, width)
        scale = 2 if variant.texture_mode == "whole" else 1
        self._texture_size = (scale * height, scale * width) if variant.texture_mode is not None else (0, 0)
        self._photographs = torch.zeros(num_envs, height, width, 3, dtype=torch.uint8, device=device)
        self._textures = torch.zeros(num_envs, *self._texture_size, 3, dtype=torch.uint8, device=device)
        self._mix = torch.zeros(num_envs, device=device)

    def show(self, i: int, table: Table, texture: Table | None) -> None:
        """Give environment i its photograph, and its texture."""
        self._photographs[i] = torch.from_numpy(fit_picture(table.picture, *self._size))
        if texture is not None:
            self._textures[i] = torch.from_numpy(fit_picture(texture.texture, *self._texture_size))
            self._mix[i] = texture.mix * self._variant.texture_ratio

    def compose(self, rgb: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        """The picture: uint8 ``[E, h, w, 3]``, from what was rendered and where it is seen, bool ``[E, h, w]``."""
        photographs = self._photographs.to(rgb.device)
        if self._variant.texture_mode is None:
            return overlay(rgb, photographs, foreground)
        blend = blend_box if self._variant.texture_mode == "box" else blend_whole
        return blend(rgb, photographs, foreground, self._textures.to(rgb.device), self._mix.to(rgb.device))


def overlay(rgb: torch.Tensor, background: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """The photograph wherever nothing simulated is seen.

    Args:
        rgb: rendered, uint8 ``[E, h, w, 3]``.
        background: photographs, uint8, the same shape.
        foreground: bool ``[E, h, w]``, the robot and the objects.
    """
    return torch.where(foreground[..., None], rgb, background)


def blend_box(
    rgb: torch.Tensor, background: torch.Tensor, foreground: torch.Tensor, texture: torch.Tensor, mix: torch.Tensor
) -> torch.Tensor:
    """:func:`overlay`, with a texture over the foreground, stretched to the foreground's bounding box.

    Args:
        rgb: see :func:`overlay`.
        background: see there.
        foreground: see there.
        texture: uint8 ``[E, h, w, 3]``.
        mix: weight of the texture, float ``[E]``, 0..1.
    """
    out = overlay(rgb, background, foreground)
    for e, (top, bottom, left, right) in boxes(foreground):
        seen = foreground[e, top:bottom, left:right, None]
        stretched = torch.nn.functional.interpolate(
            texture[e].permute(2, 0, 1)[None].float(), size=(bottom - top, right - left), mode="bilinear"
        )[0].permute(1, 2, 0)
        blended = stretched * mix[e] + rgb[e, top:bottom, left:right] * (1 - mix[e])
        inside = out[e, top:bottom, left:right]
        out[e, top:bottom, left:right] = torch.where(seen, blended.clamp(0, 255).to(torch.uint8), inside)
    return out


def blend_whole(
    rgb: torch.Tensor, background: torch.Tensor, foreground: torch.Tensor, texture: torch.Tensor, mix: torch.Tensor
) -> torch.Tensor:
    """:func:`overlay`, with a texture over everything; the window into the texture follows the foreground.

    Args:
        rgb: see :func:`overlay`.
        background: see there.
        foreground: see there.
        texture: uint8 ``[E, 2h, 2w, 3]``.
        mix: weight of the texture, float ``[E]``, 0..1.
    """
    out = overlay(rgb, background, foreground)
    h, w = foreground.shape[1:]
    for e, (top, bottom, left, right) in boxes(foreground):
        y, x = max((top + bottom - 1) // 2, 1), max((left + right - 1) // 2, 1)
        blended = out[e] * (1 - mix[e]) + texture[e, y : y + h, x : x + w] * mix[e]
        out[e] = blended.clamp(0, 255).to(torch.uint8)
    return out


def boxes(foreground: torch.Tensor) -> list[tuple[int, tuple[int, int, int, int]]]:
    """The environments that show something, each with top, bottom, left and right of it; half-open, pixels."""
    found = []
    for e in range(len(foreground)):
        rows, columns = foreground[e].any(dim=1).nonzero()[:, 0], foreground[e].any(dim=0).nonzero()[:, 0]
        if len(rows):
            found.append((e, (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)))
    return found
