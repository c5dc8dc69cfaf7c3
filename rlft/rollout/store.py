"""What the rollout keeps of an observation: its encoded prefix, or the images to encode it again."""

from collections.abc import Mapping
from dataclasses import dataclass

from rlft.errors import ConfigError, command
from rlft.placement import SHARE, gigabytes


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

    ``setting`` is ``buffer.store``; ``needed`` and ``free`` are bytes, of the rollout with either store and on the
    buffer's device.

    Raises:
        ConfigError: what is asked for does not fit, or nothing does.
    """
    space, takes = f"{gigabytes(free)} free on {device}", {name: gigabytes(size) for name, size in needed.items()}
    if setting != "auto":
        store, reason = setting, f"buffer.store={setting}: {takes[setting]}, {space}"
    elif train_vlm:
        store, reason = "images", f"the VLM trains, so prefixes change: {takes['images']}, {space}"
    elif needed["prefix"] <= SHARE * free:
        store, reason = "prefix", f"the VLM is frozen, and {takes['prefix']} is within {SHARE:.0%} of the {space}"
    else:
        reason = f"prefixes would take {takes['prefix']}, more than {SHARE:.0%} of the {space}; "
        store, reason = "images", f"{reason}images take {takes['images']}, and each minibatch encodes them anew"
    if needed[store] > free:
        instead = "buffer.store=images, " if setting == "prefix" else ""
        wanted = f"buffer.store = {setting}: a rollout with stored {store} takes {takes[store]}, {space}"
        raise ConfigError(
            f"{wanted}; try {instead}fewer env.num_envs or env.n_steps_rollout, buffer.device on another device, or "
            f"buffer.prefix_dtype=bfloat16; {command('plan')} computes what fits"
        )
    return StoreChoice(store, reason)
