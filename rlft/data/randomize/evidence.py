"""The proof that randomisation ran: how much it changed, counted on the policy's device, and a sheet for the eye."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF  # noqa: N812 - torchvision's own name for it
from torchvision.utils import make_grid

from rlft.errors import ConfigError
from rlft.placement import move, to_host

log = logging.getLogger(__name__)

ENOUGH = 8  # different draws after which unchanged images are no accident
MOST = 0.5  # share of images without a known background above which the log warns
COLUMNS, TILE, GAP = 6, 128, 2  # images in a line; the longer side of one and the room around it, pixels
MARGIN, LINE = 64, 16  # for the lines' names, for a camera's name
NO_BACKGROUND = (
    "none of the known backgrounds is in them; check domain_randomization.overlay.known_folder, known_files, min_match "
    "and tolerance"
)


class ChangeMonitor:
    """Counts changed pixels, and refuses effects that change none or an overlay that swaps none."""

    def __init__(self, effects: Sequence[str], device: torch.device) -> None:
        self.effects, self._device = tuple(effects), device
        self._owed = {"pixel", "background"} if "overlay" in effects else {"pixel"}  # of these none has changed yet
        self._draws: set[tuple[int, ...]] = set()  # that should have changed some
        self._warned = False
        self._reset()

    def add(self, before: Tensor, after: Tensor, on: Tensor, swapped: Tensor, names: Sequence[tuple[int, ...]]) -> None:
        """Count n images: uint8 ``[n, 3, h, w]`` before, what they became (``Changed``), and the names of the draws."""
        apart = torch.maximum(before, after) - torch.minimum(before, after)
        drawn = move(on, self._device)
        missed = ((swapped == 0) & drawn).sum()
        self._sums += torch.stack(
            [apart.amax(1).count_nonzero(), apart.sum(dtype=torch.int64), drawn.sum(), missed, (swapped * drawn).sum()]
        )
        self._pixels += apart.numel() // apart.shape[1]
        self._drawn_pixels += int(on.sum()) * apart[0, 0].numel()
        if self._owed:
            self._draws.update(name for name, changed in zip(names, on.tolist(), strict=True) if changed)

    def take(self) -> dict[str, float]:
        """The scalars since the last call; warns once where most images have no known background.

        Raises:
            ConfigError: after several different draws, not one pixel has changed yet, or no background was swapped.
        """
        changed, total, drawn, missed, swapped = to_host(self._sums).tolist()
        pixels, drawn_pixels = max(1, self._pixels), max(1, self._drawn_pixels)
        self._reset()
        self._owed -= {name for name, count in (("pixel", changed), ("background", swapped)) if count}
        self._prove()
        scalars = {"randomization/changed_pixels": changed / pixels, "randomization/mean_change": total / (3 * pixels)}
        if "overlay" in self.effects:
            share = missed / max(1, drawn)
            scalars |= {"randomization/overlay_missed": share, "randomization/overlay_pixels": swapped / drawn_pixels}
            if share > MOST and not self._warned:
                self._warned = True
                log.warning("%s of %s images keep their background: %s", missed, drawn, NO_BACKGROUND)
        return scalars

    def _prove(self) -> None:
        tried, off = f"in {len(self._draws)} different draws", "or set domain_randomization=null"
        if not self._owed or len(self._draws) < ENOUGH:
            return
        if "background" not in self._owed:
            keys = ", ".join(f"domain_randomization.{name}" for name in self.effects)
            raise ConfigError(f"{keys}: on, but not one pixel has changed {tried}; make a range wider, {off}")
        raise ConfigError(
            f"domain_randomization.overlay: on, but no background was swapped {tried}: {NO_BACKGROUND}, "
            f"set domain_randomization.overlay=null, {off}"
        )

    def _reset(self) -> None:
        self._sums = torch.zeros(5, dtype=torch.int64, device=self._device)
        self._pixels = self._drawn_pixels = 0


def write_sheet(path: Path, cameras: Sequence[tuple[str, Tensor, Sequence[Tensor]]]) -> None:
    """Write a PNG: per camera a line of original images, and below each what became of it.

    ``cameras`` gives name, uint8 ``[n, 3, h, w]`` originals, and one such tensor per line of variants, the first of
    which is what the policy sees. The first six rows are shown.
    """
    from PIL import Image, ImageDraw

    lines = [
        (name if i == 0 else "", "original" if i == 0 else "seen" if i == 1 else "other draw", _line(x[:COLUMNS]))
        for name, before, variants in cameras
        for i, x in enumerate((before, *variants))
        if len(before)
    ]
    if not lines:
        return
    size = MARGIN + max(x.shape[2] for *_, x in lines), sum(x.shape[1] + (LINE if name else 0) for name, _, x in lines)
    page, y = Image.new("RGB", size, "white"), 0
    pen = ImageDraw.Draw(page)
    for name, label, line in lines:
        if name:
            pen.text((2, y + 2), name, fill="black")
            y += LINE
        pen.text((2, y + line.shape[1] // 2 - 6), label, fill="black")
        page.paste(TF.to_pil_image(line), (MARGIN, y))
        y += line.shape[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    page.save(partial, format="PNG", optimize=True)
    partial.replace(path)


def _line(frames: Tensor) -> Tensor:
    """Images side by side, uint8 ``[3, h + 2 gap, n (w + gap) + gap]`` on the CPU."""
    scale = TILE / max(frames.shape[-2:])
    small = TF.resize(to_host(frames), [max(1, round(side * scale)) for side in frames.shape[-2:]])
    return make_grid(small, nrow=COLUMNS, padding=GAP, pad_value=255)
