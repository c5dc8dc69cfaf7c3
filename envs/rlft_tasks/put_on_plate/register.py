"""Makes the family known to ManiSkill and gymnasium. Importing it imports ManiSkill; nothing is loaded from disk."""

from __future__ import annotations

from typing import Any

from mani_skill.utils.registration import register_env

from rlft.types import EnvSettings
from rlft_tasks.put_on_plate.scene import PutOnPlate
from rlft_tasks.put_on_plate.variants import MAX_EPISODE_STEPS, VARIANTS

for env_id in VARIANTS:
    register_env(
        env_id,
        max_episode_steps=MAX_EPISODE_STEPS,
        asset_download_ids=["bridge_v2_real2sim", "widowx250s"],
        env_id=env_id,
    )(PutOnPlate)


def adapt(task: type[PutOnPlate], settings: EnvSettings) -> tuple[type[PutOnPlate], dict[str, Any]]:
    """The task, told where its assets are."""
    return task, {"assets_root": settings.assets_root}
