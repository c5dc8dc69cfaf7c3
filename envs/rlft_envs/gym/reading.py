"""Finds arrays and images in what an environment returned, and refuses what is none."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from rlft.types import CameraSettings
from rlft_envs.errors import EnvSetupError, unknown
from rlft_envs.images import fit_image

ASPECT_TOLERANCE = 0.02


def look_up(tree: Mapping[str, Any], key: str, setting: str) -> Any:
    """What stands at a dotted key; names may hold dots. EnvSetupError, which names the keys there are, if nothing."""
    found = list(_matches(tree, key))
    if not found:
        raise unknown(setting, key, leaves(tree))
    return found[0]


def leaves(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of everything in a tree."""
    out: list[str] = []
    for name, value in tree.items():
        out += leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [f"{prefix}{name}"]
    return out


def _matches(tree: Any, key: str) -> Iterator[Any]:
    if not isinstance(tree, Mapping):
        return
    if key in tree:
        yield tree[key]
    for at in (i for i, letter in enumerate(key) if letter == "."):
        yield from _matches(tree.get(key[:at]), key[at + 1 :])


def read_vector(tree: Mapping[str, Any], keys: Iterable[str], setting: str) -> np.ndarray:
    """The arrays at these keys, one after another, float32 ``[n]``; EnvSetupError where a key holds no numbers."""
    parts = []
    for key in keys:
        value = look_up(tree, key, setting)
        try:
            parts.append(np.asarray(value, dtype=np.float32).ravel())
        except (TypeError, ValueError):
            raise EnvSetupError(f"{setting}: {key!r} holds {type(value).__name__}, not numbers") from None
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def read_image(value: Any, what: str) -> np.ndarray:
    """An image as rlft has them, uint8 ``[h, w, 3]``; ``what`` says in the EnvSetupError whose it is if it is none.

    It may be uint8 or floats in [0, 1], ``[h, w, 3]`` or ``[3, h, w]``, with or without a first axis of one.
    """
    image = np.asarray(value)
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim == 3 and image.shape[0] == 3 != image.shape[-1]:
        image = np.moveaxis(image, 0, -1)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise EnvSetupError(f"{what}: is {image.dtype} {list(image.shape)}; an RGB image has three axes, one of them 3")
    if np.issubdtype(image.dtype, np.floating):
        if not (image.min() >= 0.0 and image.max() <= 1.0):  # also where one is no number
            found = f"floats from {image.min():g} to {image.max():g}"
            raise EnvSetupError(f"{what}: {found}; give floats in [0, 1], or uint8")
        image = np.rint(image * 255.0).astype(np.uint8)
    if image.dtype != np.uint8:
        raise EnvSetupError(f"{what}: is {image.dtype}; give uint8, or floats in [0, 1]")
    return np.ascontiguousarray(image)


def at_size(image: np.ndarray, camera: CameraSettings) -> np.ndarray:
    """An image at the camera's resolution, uint8 ``[height, width, 3]``; EnvSetupError where it would be distorted."""
    height, width = image.shape[:2]
    if (height, width) == (camera.height, camera.width):
        return image
    if abs(width / height * camera.height / camera.width - 1.0) > ASPECT_TOLERANCE:
        sizes = f"is {height} x {width}, env.cameras asks for {camera.height} x {camera.width}"
        rule = f"must have the same proportion, for instance aspect: {width / height:.4g} without a size"
        raise EnvSetupError(f"camera {camera.name!r}: the environment's image {sizes}: height x width {rule}")
    return fit_image(image, camera.height, camera.width)
