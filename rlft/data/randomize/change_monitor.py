"""The proof that randomisation ran: how much it changed, counted on the policy's device."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from rlft.errors import ConfigError
from rlft.placement import move, to_host

log = logging.getLogger(__name__)

ENOUGH = 8  # different draws after which unchanged images are no accident
MOST = 0.5  # share of images without a known background above which the log warns
NO_BACKGROUND = (
    "none of the known backgrounds is in them; check domain_randomization.overlay.known_folder, known_files, min_match "
    "and tolerance"
)


class ChangeMonitor:
    """Counts changed pixels, and refuses effects that change none or an overlay that swaps none."""

    def __init__(self, effects: Sequence[str], device: torch.device) -> None:
        self.effects, self._device = tuple(effects), device
        self._unproved: set[tuple[int, ...]] | None = set()  # draws so far; None once everything has shown an effect
        self._pixel_changed, self._background_swapped, self._warned = False, "overlay" not in effects, False
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
        if self._unproved is not None:
            self._unproved.update(name for name, changed in zip(names, on.tolist(), strict=True) if changed)

    def take(self) -> dict[str, float]:
        """The scalars since the last call; warns once where most images have no known background.

        Raises:
            ConfigError: after several different draws, not one pixel has changed yet, or no background was swapped.
        """
        changed, total, drawn, missed, swapped = to_host(self._sums).tolist()
        pixels, drawn_pixels = max(1, self._pixels), max(1, self._drawn_pixels)
        self._reset()
        self._pixel_changed |= changed > 0
        self._background_swapped |= swapped > 0
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
        if self._pixel_changed and self._background_swapped:
            self._unproved = None
        if self._unproved is None or len(self._unproved) < ENOUGH:
            return
        draws, off = len(self._unproved), "or set domain_randomization=null"
        if self._background_swapped:
            keys = ", ".join(f"domain_randomization.{name}" for name in self.effects)
            raise ConfigError(
                f"{keys}: on, but not one pixel has changed in {draws} different draws; make a range wider, {off}"
            )
        raise ConfigError(
            f"domain_randomization.overlay: on, but no background was swapped in {draws} different draws: "
            f"{NO_BACKGROUND}, set domain_randomization.overlay=null, {off}"
        )

    def _reset(self) -> None:
        self._sums = torch.zeros(5, dtype=torch.int64, device=self._device)
        self._pixels = self._drawn_pixels = 0
