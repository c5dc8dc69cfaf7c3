"""Folders of images: textures and backgrounds."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF  # noqa: N812 - torchvision's own name for it

from rlft.errors import ConfigError
from rlft.placement import move

SUFFIXES = (".png", ".jpg", ".jpeg")


class Images:
    """The images of a folder whose names fit a pattern, by name, resized to a camera when that is first asked for.

    Raises:
        ConfigError: there is no such folder, a pattern fits no file, or a file is no image; names the setting.
    """

    def __init__(self, setting: str, folder: Path, files: Sequence[str], device: torch.device) -> None:
        if not folder.is_dir():
            raise ConfigError(
                f"{setting} = {folder}: no such directory; give one with images, or set assets.root (or RLFT_ASSETS) "
                "to where downloaded assets are"
            )
        names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        for pattern in files:
            if not any(fnmatch(name, pattern) for name in names):
                raise ConfigError(f"{setting} = {folder}: {pattern!r} fits none of its {len(names)} images")
        self.names = [name for name in names if any(fnmatch(name, pattern) for pattern in files)]
        self._originals, self._device = [_read(folder / name) for name in self.names], device
        self._resized: dict[tuple[int, int], Tensor] = {}

    def at(self, height: int, width: int) -> Tensor:
        """All images at a camera's size, uint8 ``[K, 3, height, width]``."""
        size = (height, width)
        if size not in self._resized:
            self._resized[size] = move(torch.stack([TF.resize(x, list(size)) for x in self._originals]), self._device)
        return self._resized[size]


def _read(path: Path) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return TF.pil_to_tensor(image.convert("RGB"))  # a transparent PNG keeps the colours that it hides
    except (UnidentifiedImageError, OSError) as error:
        raise ConfigError(f"{path}: not an image that can be read: {error}") from error
