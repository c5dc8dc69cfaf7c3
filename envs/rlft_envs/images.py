"""Images from files, at a camera's resolution."""

from pathlib import Path

import numpy as np

from rlft_envs.errors import EnvSetupError


def fit_image(image: str | Path | np.ndarray, height: int, width: int) -> np.ndarray:
    """A file, or uint8 ``[h, w, 3]``, stretched to uint8 ``[height, width, 3]``, RGB: bilinear, antialiased."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(image, np.ndarray):
        opened = Image.fromarray(image)
    else:
        try:
            with Image.open(image) as file:
                opened = file.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise EnvSetupError(f"{image}: not an image that can be read ({error})") from error
    return np.array(opened.resize((width, height), Image.Resampling.BILINEAR))
