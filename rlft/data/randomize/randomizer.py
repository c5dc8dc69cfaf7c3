"""Pictures changed before the policy sees them, in a batch, on the policy's device.

What is drawn, and what follows from it per row, is computed on the host and brought to the device in one move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlft.config.randomization import DomainRandomizationConfig, OverlayConfig, TextureConfig, enabled_effects
from rlft.data.randomize import effects
from rlft.data.randomize.change import ChangeTally
from rlft.data.randomize.draws import Draws, draw, pick
from rlft.data.randomize.overlay import find_background, swap
from rlft.data.randomize.pictures import Pictures
from rlft.data.randomize.sheet import write_sheet
from rlft.placement import move
from rlft.seeding import generator_for
from rlft.types import Observation

TAPE = 2**22  # normal numbers, drawn once; a row's noise is a window of them
ROWS = 8  # changed at once by a CPU: what is in between takes a dozen times a picture, and should stay in its cache
GPU_PIXELS = 2**25  # changed at once by a GPU: a whole decision's pictures, in some 5 GB

type Name = tuple[int, ...]


@dataclass(frozen=True)
class Changed:
    """Randomised pictures.

    Attributes:
        frames: uint8 ``[n, 3, h, w]``.
        on: bool ``[n]``, whether the row was drawn to be changed; on the CPU.
        swapped: int64 ``[n]``, how many of its pixels got another background.
    """

    frames: Tensor
    on: Tensor
    swapped: Tensor


class PictureRandomizer:
    """Changes the pictures of observations.

    Args:
        cfg: what is changed, and how much.
        seed: the run's seed.
        purpose: what the pictures are for; names the random numbers.
        device: the policy's device.
        assets: where relative folders of pictures are; None: the working directory.
        sheet: a PNG that shows the first pictures, before and after; None for none.

    Raises:
        ConfigError: a folder or a picture of the settings cannot be read.
    """

    def __init__(
        self,
        cfg: DomainRandomizationConfig,
        *,
        seed: int,
        purpose: str,
        device: torch.device,
        assets: Path | None = None,
        sheet: Path | None = None,
    ) -> None:
        self.cfg, self.seed, self.purpose, self.device = cfg, seed, purpose, device
        self._root, self._sheet = assets or Path(), sheet
        self._textures = None if cfg.texture is None else self._pictures("texture.folder", cfg.texture)
        self._overlays = self._known = None
        if cfg.overlay is not None:
            self._overlays = self._pictures("overlay.folder", cfg.overlay)
            known = replace(cfg.overlay, folder=cfg.overlay.known_folder or cfg.overlay.folder)
            self._known = self._pictures("overlay.known_folder", replace(known, files=cfg.overlay.known_files))
        self._tape: Tensor | None = None
        if cfg.noise > 0.0:
            self._tape = move(torch.randn(TAPE, generator=generator_for(seed, "domain-randomization-noise")), device)
        self.tally = ChangeTally(enabled_effects(cfg), device)

    def __call__(self, obs: Observation, names: Sequence[Name], moment: Name = ()) -> Observation:
        """Change the pictures of n rows.

        Args:
            obs: n rows; its pictures may be on another device.
            names: n tuples of counters: which episode each row is of, or which row it is.
            moment: further counters, which count where settings ask for a draw per decision.

        Returns:
            the observation with uint8 ``[n, height, width, 3]`` pictures on the policy's device; those of cameras that
            are left alone are the same objects as before.
        """
        named = [(*name, *moment) for name in names] if self.cfg.per == "decision" else list(names)
        images = dict(obs.images)
        shown = []
        chosen = {name: x for name, x in obs.images.items() if self.cfg.cameras is None or name in self.cfg.cameras}
        moved = move(chosen, self.device)
        for index, camera in enumerate(obs.images):
            if camera in moved:
                before = moved[camera].movedim(-1, 1).contiguous()
                own = [(*name, index) for name in named]
                changed = self.change(before, own)
                self.tally.add(before, changed.frames, changed.on, changed.swapped, own)
                images[camera] = changed.frames.movedim(1, -1)
                shown.append((camera, before, own))
        if self._sheet is not None:
            write_sheet(self._sheet, [(camera, before, self._variants(before, own)) for camera, before, own in shown])
            self._sheet = None
        return replace(obs, images=images)

    def change(self, frames: Tensor, names: Sequence[Name]) -> Changed:
        """Change n pictures of one camera; a row depends on its own picture and name alone.

        Args:
            frames: uint8 ``[n, 3, h, w]``, on the policy's device.
            names: n tuples of counters.
        """
        rows = ROWS if frames.is_cpu else max(ROWS, GPU_PIXELS // frames[0, 0].numel())
        parts = [self._change(x, names[i * rows : (i + 1) * rows]) for i, x in enumerate(frames.split(rows))]
        return Changed(*(torch.cat([vars(part)[name] for part in parts]) for name in ("frames", "on", "swapped")))

    def scalars(self) -> dict[str, float]:
        """For the log, since the last call: the share of changed pixels and the mean change.

        Raises:
            ConfigError: see :meth:`rlft.data.randomize.change.ChangeTally.take`.
        """
        return self.tally.take()

    def _pictures(self, key: str, section: TextureConfig | OverlayConfig) -> Pictures:
        folder = self._root / Path(section.folder).expanduser()
        return Pictures(f"domain_randomization.{key}", folder, section.files, self.device)

    def _variants(self, frames: Tensor, names: Sequence[Name], count: int = 3) -> list[Tensor]:
        """What the policy sees, and what other draws would have shown it."""
        rows = slice(0, ROWS)
        return [self.change(frames[rows], [(*n, k) if k else n for n in names[rows]]).frames for k in range(count + 1)]

    def _change(self, frames: Tensor, names: Sequence[Name]) -> Changed:
        draws = draw(self.cfg, self.seed, self.purpose, names)
        given = move(self._parameters(draws, *frames.shape[-2:]), self.device)
        placed, swapped = self._place(frames, given)
        return Changed(torch.where(given["on"], self._photograph(placed, given), frames), draws.on, swapped)

    def _parameters(self, draws: Draws, height: int, width: int) -> dict[str, Any]:
        """What the effects take beside the pictures, by name, n rows each, on the host: all of it moves at once."""
        cfg = self.cfg
        given: dict[str, Any] = {"on": effects.per_row(draws.on)}
        if self._overlays is not None:
            given["overlay"] = pick(draws.overlay, len(self._overlays))
        if self._textures is not None:
            given |= {"texture": pick(draws.texture, len(self._textures)), "ratio": draws.ratio.float()}
        if cfg.crop > 0.0:
            given["rows"] = effects.window(draws.kept, draws.top, height)
            given["columns"] = effects.window(draws.kept, draws.left, width)
        if cfg.shift > 0.0:
            given["shift"] = (height * draws.down).round().long(), (width * draws.right).round().long()
        if cfg.blur > 0.0:
            given["blur"] = effects.blur_weights(draws.blur, cfg.blur)
        if cfg.saturation > 0.0 or cfg.hue > 0.0:
            given["colour"] = effects.colour_matrix(draws.saturation, draws.hue)
        if cfg.contrast > 0.0:
            given["contrast"] = draws.contrast.float()
        if cfg.brightness > 0.0:
            given["brightness"] = draws.brightness.float()
        if self._tape is not None:
            given |= {"noise": draws.noise.float(), "noise_at": _starts(draws.noise_at, 3 * height * width)}
        return given

    def _place(self, frames: Tensor, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """What stands where: background, texture, window. Also how many pixels were swapped, int64 ``[n]``."""
        cfg, (height, width) = self.cfg, frames.shape[-2:]
        swapped = torch.zeros(len(frames), dtype=torch.int64, device=self.device)
        if cfg.overlay is not None and self._overlays is not None and self._known is not None:
            found = find_background(frames, self._known.at(height, width), cfg.overlay.tolerance)
            others = self._overlays.at(height, width)[given["overlay"]]
            frames, swapped = swap(frames, found, others, cfg.overlay.min_match)
        if self._textures is not None:
            frames = effects.blend(frames, self._textures.at(height, width)[given["texture"]], given["ratio"])
        if "rows" in given:
            frames = effects.crop(frames, given["rows"], given["columns"])
        if "shift" in given:
            frames = effects.shift(frames, *given["shift"])
        return frames, swapped

    def _photograph(self, frames: Tensor, given: dict[str, Any]) -> Tensor:
        """What lens, light and sensor do to the pixels."""
        for effect in (effects.blur, effects.colour, effects.contrast, effects.brightness):
            if effect.__name__ in given:
                frames = effect(frames, given[effect.__name__])
        if self._tape is not None:
            windows = self._tape.unfold(0, frames[0].numel(), 1)[given["noise_at"]]  # each row's, of the tape
            frames = effects.noise(frames, given["noise"], windows.view(frames.shape))
        return frames


def _starts(at: Tensor, size: int) -> Tensor:
    """Where each row's window of the tape begins, int64 ``[n]``."""
    if size >= TAPE:
        raise ValueError(f"a picture of {size} numbers is larger than the noise tape of {TAPE} numbers")
    return pick(at, TAPE - size)
