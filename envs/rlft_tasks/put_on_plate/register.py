"""Makes the family known to ManiSkill and gymnasium. Importing it imports ManiSkill; nothing is loaded from disk."""

from __future__ import annotations

from mani_skill.utils.registration import register_env

from rlft_tasks.put_on_plate.scene import PutOnPlate
from rlft_tasks.put_on_plate.variants import MAX_EPISODE_STEPS, VARIANTS

for env_id in VARIANTS:
    register_env(
        env_id,
        max_episode_steps=MAX_EPISODE_STEPS,
        asset_download_ids=["bridge_v2_real2sim", "widowx250s"],
        env_id=env_id,
    )(PutOnPlate)
