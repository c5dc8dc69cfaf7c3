"""Folders of pictures: textures and backgrounds."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody knows
from torch import Tensor

from rlft.errors import ConfigError
from rlft.placement import move

SUFFIXES = (".png", ".jpg", ".jpeg")


class Pictures:
    """The pictures of a folder, in the order of their names, resized to a camera when that is first asked for.

    Args:
        setting: the dotted name of the setting, for messages.
        folder: where they are.
        files: name patterns; a file counts that fits one of them.
        device: where they are kept.

    Raises:
        ConfigError: there is no such folder, a pattern fits no file, or a file is no picture.
    """

    def __init__(self, setting: str, folder: Path, files: Sequence[str], device: torch.device) -> None:
        if not folder.is_dir():
            raise ConfigError(
                f"{setting} = {folder}: no such directory; give one with pictures, or set assets.root (or RLFT_ASSETS) "
                "to where downloaded assets are"
            )
        names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        for pattern in files:
            if not any(fnmatch(name, pattern) for name in names):
                raise ConfigError(f"{setting} = {folder}: {pattern!r} fits none of its {len(names)} pictures")
        self.names = [name for name in names if any(fnmatch(name, pattern) for pattern in files)]
        self._originals = [_read(folder / name) for name in self.names]
        self._device = device
        self._resized: dict[tuple[int, int], Tensor] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)

    def at(self, height: int, width: int) -> Tensor:
        """All pictures at a camera's size, uint8 ``[K, 3, height, width]``."""
        size = (height, width)
        if size not in self._resized:
            resized = torch.cat([resize(x, height, width) for x in self._originals])
            self._resized[size] = move(resized, self._device)
        return self._resized[size]


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """Bilinear and antialiased, as the environments fit their backgrounds to a camera.

    Args:
        frames: uint8 ``[n, 3, h, w]``.
        height: rows, pixels.
        width: columns, pixels.
    """
    if frames.shape[-2:] == (height, width):
        return frames
    floats = F.interpolate(frames.float(), (height, width), mode="bilinear", align_corners=False, antialias=True)
    return floats.round_().clamp_(0, 255).to(torch.uint8)


def _read(path: Path) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            pixels = np.array(picture.convert("RGB"))  # a transparent PNG keeps the colours that it hides
    except (UnidentifiedImageError, OSError) as error:
        raise ConfigError(f"{path}: not a picture that can be read: {error}") from error
    return torch.from_numpy(pixels).movedim(-1, 0)[None]
