"""What the rollout keeps of an observation: its encoded prefix, or the pictures to encode it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlft.errors import ConfigError
from rlft.memory import gigabytes

SHARE = 0.6  # of the free memory: gradients, optimiser and activations, which do not exist yet, need the rest
REMEDIES = (
    "fewer env.num_envs or env.n_steps_rollout, buffer.device on another device, or buffer.prefix_dtype=bfloat16; "
    "scripts/plan.py computes what fits"
)


@dataclass(frozen=True)
class StoreChoice:
    """What is stored, and why."""

    store: str  # `prefix` or `images`
    reason: str  # for the log and the run's record

    @property
    def prefix(self) -> bool:
        """Whether prefixes are stored."""
        return self.store == "prefix"


def choose_store(setting: str, *, train_vlm: bool, needed: Mapping[str, int], free: int, device: str) -> StoreChoice:
    """Decide what the rollout buffer keeps.

    A stored prefix is exact for every epoch while the VLM is frozen, and spares the update the VLM.

    Args:
        setting: ``buffer.store``.
        train_vlm: whether the VLM trains.
        needed: bytes of the rollout with either store.
        free: free bytes of the buffer's device.
        device: the buffer's device, for the message.

    Raises:
        ConfigError: what is asked for does not fit, or nothing does.
    """
    space = f"{gigabytes(free)} free on {device}"
    if setting != "auto":
        chosen = StoreChoice(setting, f"buffer.store={setting}: {gigabytes(needed[setting])}, {space}")
    elif train_vlm:
        chosen = StoreChoice("images", f"the VLM trains, so prefixes change: {gigabytes(needed['images'])}, {space}")
    elif needed["prefix"] <= SHARE * free:
        chosen = StoreChoice(
            "prefix",
            f"the VLM is frozen, and {gigabytes(needed['prefix'])} is within {SHARE:.0%} of the {space}",
        )
    else:
        chosen = StoreChoice(
            "images",
            f"prefixes would take {gigabytes(needed['prefix'])}, more than {SHARE:.0%} of the {space}; "
            f"pictures take {gigabytes(needed['images'])}, and each minibatch encodes them anew",
        )
    if needed[chosen.store] > free:
        instead = "buffer.store=images, " if setting == "prefix" else ""
        raise ConfigError(
            f"buffer.store = {setting}: a rollout with stored {chosen.store} takes {gigabytes(needed[chosen.store])}, "
            f"{space}; try {instead}{REMEDIES}"
        )
    return chosen
