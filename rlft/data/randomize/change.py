"""The proof that randomisation ran: how much it changed, counted on the policy's device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlft.errors import ConfigError

ENOUGH = 8  # different draws after which unchanged pictures are no accident


class ChangeTally:
    """Counts changed pixels, and refuses a randomisation that changes none.

    Args:
        effects: the names of the effects that are on.
        device: where the pictures are.
    """

    def __init__(self, effects: Sequence[str], device: torch.device) -> None:
        self.effects = tuple(effects)
        self._device = device
        self._unproved: set[tuple[int, ...]] | None = set()  # draws so far; None once a pixel has changed
        self._forget()

    def add(self, before: Tensor, after: Tensor, on: Tensor, missed: Tensor, names: Sequence[tuple[int, ...]]) -> None:
        """Count n pictures.

        Args:
            before: uint8 ``[n, 3, h, w]``.
            after: uint8 ``[n, 3, h, w]``.
            on: bool ``[n]``, whether it was drawn to change it; on the CPU.
            missed: bool ``[n]``, whether no known background was found in it.
            names: what the draws are named by.
        """
        apart = torch.maximum(before, after) - torch.minimum(before, after)
        drawn = on.to(self._device)
        self._sums += torch.stack(
            [apart.amax(1).count_nonzero(), apart.sum(dtype=torch.int64), drawn.sum(), (missed & drawn).sum()]
        )
        self._pixels += apart.numel() // apart.shape[1]
        if self._unproved is not None:
            self._unproved.update(name for name, changed in zip(names, on.tolist(), strict=True) if changed)

    def take(self) -> dict[str, float]:
        """The scalars since the last call.

        Raises:
            ConfigError: after several different draws, not one pixel has changed yet.
        """
        changed, total, drawn, missed = self._sums.tolist()
        pixels = max(1, self._pixels)
        self._forget()
        if changed:
            self._unproved = None
        elif self._unproved is not None and len(self._unproved) >= ENOUGH:
            raise ConfigError(self._nothing_changed(missed > 0))
        scalars = {"randomization/changed_pixels": changed / pixels, "randomization/mean_change": total / (3 * pixels)}
        if "overlay" in self.effects:
            scalars["randomization/overlay_missed"] = missed / max(1, drawn)
        return scalars

    def _forget(self) -> None:
        self._sums = torch.zeros(4, dtype=torch.int64, device=self._device)
        self._pixels = 0

    def _nothing_changed(self, missed: bool) -> str:
        keys = ", ".join(f"domain_randomization.{name}" for name in self.effects)
        remedy = "make a range wider, or set domain_randomization=null"
        if missed:
            remedy = (
                "none of the known backgrounds is in the pictures: check domain_randomization.overlay.known_folder "
                f"and overlay.tolerance, {remedy}"
            )
        return f"{keys}: on, but not one pixel has changed in {len(self._unproved or ())} different draws; {remedy}"
