"""Pictures from files, at a camera's resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlft_envs.errors import EnvSetupError


def fit_picture(picture: str | Path | np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture stretched to a size: bilinear, antialiased.

    Args:
        picture: a file, or uint8 ``[h, w, 3]``.
        height: rows, pixels.
        width: columns, pixels.

    Returns:
        uint8 ``[height, width, 3]``, RGB.

    Raises:
        EnvSetupError: the file is missing or no picture.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(picture, np.ndarray):
        image = Image.fromarray(picture)
    else:
        try:
            with Image.open(picture) as opened:
                image = opened.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise EnvSetupError(f"{picture}: not a picture that can be read ({error})") from error
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR))
