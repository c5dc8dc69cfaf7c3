"""Image randomisation from settings."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rlft.assets.sources import assets_root
from rlft.config.randomization import enabled_effects
from rlft.config.schema import RunConfig
from rlft.placement import Placement

if TYPE_CHECKING:
    from rlft.data.randomize.randomizer import ImageRandomizer

log = logging.getLogger(__name__)


def build_randomizer(cfg: RunConfig, stage: str, placement: Placement, run: Path) -> ImageRandomizer | None:
    """What changes the images of a stage, or None where the settings leave them as they are.

    Args:
        cfg: settings.
        stage: ``rollout`` or ``sft``; names the random numbers and the contact sheet.
        placement: the images are changed on the policy's device.
        run: the run directory, for the contact sheet.

    Raises:
        ConfigError: a folder or an image of the settings cannot be read.
    """
    section = cfg.domain_randomization
    if section is None or not {"rollout": section.rollout, "sft": section.sft}[stage]:
        return None
    from rlft.data.randomize.randomizer import ImageRandomizer

    log.info("images of %s are randomised: %s", stage, ", ".join(enabled_effects(section)))
    return ImageRandomizer(
        section,
        seed=cfg.seed,
        purpose="domain-randomization" if stage == "rollout" else "domain-randomization-sft",
        device=placement.policy,
        assets=assets_root(cfg.assets.root),
        sheet=run / f"randomization_{stage}.png",
    )
