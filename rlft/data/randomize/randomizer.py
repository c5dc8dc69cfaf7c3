"""Images changed before the policy sees them, in a batch, on the policy's device."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF  # noqa: N812 - torchvision's own name for it

from rlft.config.schema import DomainRandomizationConfig, OverlayConfig, TextureConfig, enabled_effects
from rlft.data.randomize import effects
from rlft.data.randomize.evidence import ChangeMonitor, write_sheet
from rlft.errors import ConfigError
from rlft.placement import move
from rlft.seeding import generator_for
from rlft.types import Observation

SUFFIXES = (".png", ".jpg", ".jpeg")  # of the images in folders
RANGE = 255.0
NOISE_POOL = 2**22  # normal numbers, drawn once; a row's noise is a window of them
ROWS = 8  # changed at once by a CPU: what is in between takes a dozen times an image, and should stay in its cache
GPU_PIXELS = 2**25  # changed at once by a GPU: a whole decision's images, in some 5 GB
SLOTS = (  # the place of each draw, so that switching an effect on leaves the draws of all others as they were
    "on", "brightness", "contrast", "saturation", "hue", "noise", "noise_at", "blur", "crop", "crop_top", "crop_left",
    "down", "right", "texture", "ratio", "overlay",
)  # fmt: skip

type Name = tuple[int, ...]  # iteration, environment and episode, or step and row; then the camera


class Images:
    """The images of a folder whose names fit a pattern, by name, resized to a camera when that is first asked for.

    Raises:
        ConfigError: there is no such folder, a pattern fits no file, or a file is no image; names the setting.
    """

    def __init__(self, setting: str, folder: Path, files: Sequence[str], device: torch.device) -> None:
        if not folder.is_dir():
            remedy = "give one with images, or set assets.root (or RLFT_ASSETS) to where downloaded assets are"
            raise ConfigError(f"{setting} = {folder}: no such directory; {remedy}")
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


class Changed(NamedTuple):
    """Randomised images."""

    frames: Tensor  # uint8 [n, 3, h, w]
    on: Tensor  # bool [n], whether the row was drawn to be changed; on the CPU
    swapped: Tensor  # int64 [n], how many of its pixels got another background


@dataclass(eq=False)
class ImageRandomizer:
    """Changes the images of observations; a ConfigError where a folder or an image of the settings cannot be read."""

    cfg: DomainRandomizationConfig  # what is changed, and how much
    _: KW_ONLY
    seed: int  # the run's seed
    purpose: str  # what the images are for; names the random numbers
    device: torch.device  # the policy's
    assets: Path | None = None  # where relative folders of images are; None: the working directory
    sheet: Path | None = None  # a PNG that shows the first images, before and after; None for none

    def __post_init__(self) -> None:
        """Read the folders of images, and draw the noise."""
        cfg = self.cfg
        self._noise_pool: Tensor | None = None
        self._textures = None if cfg.texture is None else self._images("texture.folder", cfg.texture)
        self._overlays = self._known = None
        if cfg.overlay is not None:
            self._overlays = self._images("overlay.folder", cfg.overlay)
            folder, files = cfg.overlay.known_folder or cfg.overlay.folder, cfg.overlay.known_files
            self._known = self._images("overlay.known_folder", replace(cfg.overlay, folder=folder, files=files))
        if cfg.noise > 0.0:
            generator = generator_for(self.seed, "domain-randomization-noise")
            self._noise_pool = move(torch.randn(NOISE_POOL, generator=generator), self.device)
        self.monitor = ChangeMonitor(enabled_effects(cfg), self.device)

    def __call__(self, obs: Observation, names: Sequence[Name], moment: Name = ()) -> Observation:
        """Change images, uint8 ``[n, height, width, 3]``; they come back on the policy's device.

        Those of cameras that are left alone are the same objects as before. ``names`` are n tuples of counters: which
        episode a row is of, or which row it is; ``moment`` counts as well where settings ask for a draw per decision.
        """
        named = [(*name, *moment) for name in names] if self.cfg.per == "decision" else list(names)
        images, shown = dict(obs.images), []
        for index, camera in enumerate(obs.images):
            if self.cfg.cameras is None or camera in self.cfg.cameras:
                before = move(obs.images[camera], self.device).movedim(-1, 1).contiguous()
                own = [(*name, index) for name in named]
                changed = self.change(before, own)
                self.monitor.add(before, *changed, own)
                images[camera] = changed.frames.movedim(1, -1)
                shown.append((camera, before, own))
        if self.sheet is not None:
            write_sheet(self.sheet, [(camera, before, self._variants(before, own)) for camera, before, own in shown])
            self.sheet = None
        return replace(obs, images=images)

    def change(self, frames: Tensor, names: Sequence[Name]) -> Changed:
        """Change uint8 ``[n, 3, h, w]`` on the policy's device; a row depends on its own image and name alone."""
        rows = ROWS if frames.is_cpu else max(ROWS, GPU_PIXELS // frames[0, 0].numel())
        parts = [self._change(x, names[i * rows : (i + 1) * rows]) for i, x in enumerate(frames.split(rows))]
        return Changed(*map(torch.cat, zip(*parts, strict=True)))

    def scalars(self) -> dict[str, float]:
        """For the log; see :meth:`ChangeMonitor.take`."""
        return self.monitor.take()

    def _images(self, key: str, section: TextureConfig | OverlayConfig) -> Images:
        folder = (self.assets or Path()) / Path(section.folder).expanduser()
        return Images(f"domain_randomization.{key}", folder, section.files, self.device)

    def _variants(self, frames: Tensor, names: Sequence[Name], count: int = 3) -> list[Tensor]:
        """What the policy sees, and what other draws would have shown it."""
        rows = slice(0, ROWS)
        return [self.change(frames[rows], [(*n, k) if k else n for n in names[rows]]).frames for k in range(count + 1)]

    def _change(self, frames: Tensor, names: Sequence[Name]) -> Changed:
        table = draw(self.seed, self.purpose, names)
        u = dict(zip(SLOTS, move(table, self.device).unbind(1), strict=True))
        on, (placed, swapped) = u["on"] < self.cfg.probability, self._place(frames, u)
        changed = torch.where(on[:, None, None, None], self._photograph(placed, u), frames)
        return Changed(changed, table[:, SLOTS.index("on")] < self.cfg.probability, swapped)

    def _place(self, frames: Tensor, u: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What stands where: background, texture, window. Also how many pixels were swapped, int64 ``[n]``."""
        cfg, (height, width) = self.cfg, frames.shape[-2:]
        swapped = torch.zeros(len(frames), dtype=torch.int64, device=self.device)
        if cfg.overlay is not None and self._overlays is not None and self._known is not None:
            found = effects.find_background(frames, self._known.at(height, width), cfg.overlay.tolerance)
            new = pick(u["overlay"], self._overlays.at(height, width))
            frames, swapped = effects.swap(frames, found, new, cfg.overlay.min_match)
        if cfg.texture is not None and self._textures is not None:
            texture = pick(u["texture"], self._textures.at(height, width))
            frames = effects.mix(frames, texture, cfg.texture.ratio * u["ratio"])
        if cfg.crop > 0.0 or cfg.shift > 0.0:
            cut = cfg.crop * u["crop"]
            moved = (height * around_zero(u["down"], cfg.shift), width * around_zero(u["right"], cfg.shift))
            start = cut * u["crop_top"], cut * u["crop_left"]
            frames = effects.place(frames, 1.0 - cut, start, (moved[0].round(), moved[1].round()))
        return frames, swapped

    def _photograph(self, frames: Tensor, u: dict[str, Tensor]) -> Tensor:
        """What lens, light and sensor do to the pixels."""
        cfg = self.cfg
        if cfg.blur > 0.0:
            frames = effects.blur(frames, cfg.blur * u["blur"], cfg.blur)
        if cfg.saturation > 0.0:
            frames = effects.saturation(frames, 1.0 + around_zero(u["saturation"], cfg.saturation))
        if cfg.hue > 0.0:
            frames = effects.hue(frames, around_zero(u["hue"], cfg.hue))
        if cfg.contrast > 0.0:
            frames = effects.contrast(frames, 1.0 + around_zero(u["contrast"], cfg.contrast))
        if cfg.brightness > 0.0:
            frames = effects.add(frames, effects.per_row(RANGE * around_zero(u["brightness"], cfg.brightness)))
        if self._noise_pool is not None:
            windows = self._noise_pool.unfold(0, frames[0].numel(), 1)  # an image larger than the pool is an error here
            field = pick(u["noise_at"], windows).view(frames.shape)
            frames = effects.add(frames, field * effects.per_row(RANGE * cfg.noise * u["noise"]))
        return frames


def draw(seed: int, purpose: str, names: Sequence[Name]) -> Tensor:
    """Uniform numbers in [0, 1), float64 ``[n, slots]`` on the CPU; the same seed, purpose and name give the same."""
    streams = (generator_for(seed, purpose, *name) for name in names)
    return torch.stack([torch.rand(len(SLOTS), dtype=torch.float64, generator=stream) for stream in streams])


def around_zero(u: Tensor, most: float) -> Tensor:
    """[0, 1) -> [-most, most)."""
    return most * (2.0 * u - 1.0)


def pick(u: Tensor, things: Tensor) -> Tensor:
    """Evenly one of the things ``[K, ...]`` per row: ``[n]`` in [0, 1) -> ``[n, ...]``."""
    return things[(u * len(things)).long()]
