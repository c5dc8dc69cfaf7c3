"""What the variants of the family differ in, as one table. Standard library only.

A variant is a product of digits: object, plate, table, position, yaw, and for some an extra one. Each digit counts over
a range that depends on the split. Ids, ranges and the order of the digits are those of RL4VLA (Liu et al. 2025), so
that a number means the same configuration here and there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from rlft_envs.errors import EnvSetupError, unknown

PREFIX = "PutOnPlateInScene25"
SPLITS = ("train", "test", "all")
MAX_EPISODE_STEPS = 80

TEMPLATES = (
    "put {object} on {plate}",
    "Place the {object} on the {plate}",
    "set {object} on {plate}",
    "move the {object} to the {plate}",
    "Take the {object} and put it on the {plate}",
    "pick up {object} and set it down on {plate}",
    "please put the {object} on the {plate}",
    "Put {object} onto {plate}.",
    "place the {object} onto the {plate} surface",
    "Make sure {object} is on {plate}.",
    "on the {plate}, put the {object}",
    "put the {object} where the {plate} is",
    "Move the {object} from the table to the {plate}",
    "Move {object} so it’s on {plate}.",
    "Can you put {object} on {plate}?",
    "{object} on the {plate}, please.",
    "the {object} should be placed on the {plate}.",
)
"""The published phrasings that a configuration of Instruct-v1 can have; the first is everybody else's."""


class Values(NamedTuple):
    """The values that a digit takes: training has those that are seen, the test split the rest, where there is one."""

    seen: int
    total: int

    def of(self, split: str) -> range:
        """The values in a split."""
        if split == "train":
            return range(self.seen)
        return range(self.seen if split == "test" and self.seen < self.total else 0, self.total)


OBJECTS, TABLES, ONE = Values(16, 25), Values(16, 21), Values(1, 1)
UNSEEN = Values(1, 17)
"""One value to train with and sixteen others to test with: plates, textures, phrasings."""


@dataclass(frozen=True)
class Variant:
    """One line of the table."""

    objects: Values = OBJECTS
    plates: Values = ONE
    tables: Values = TABLES
    layout: str = "pairs"  # where things stand (rlft_tasks.put_on_plate.layouts)
    extra: str | None = None  # what the extra digit chooses: `texture`, `template`, `qpos`, `object`, `plate`
    extras: Values | None = None  # its values; a distractor's follow from those of objects and plates
    texture_mode: str | None = None  # `box` blends a texture into robot and objects, `whole` into the whole image
    texture_ratio: float = 0.0  # how much of the texture
    moves: tuple[str, ...] = ()  # splits in which the object jumps to a third place after MOVES_AFTER steps

    @property
    def distracts(self) -> bool:
        """Whether the extra digit chooses a second object or plate."""
        return self.extra in ("object", "plate")


MOVES_AFTER = 5
_SEEN = Variant(objects=Values(16, 16), tables=Values(16, 16))
_BOX = replace(_SEEN, extra="texture", extras=UNSEEN, texture_mode="box", texture_ratio=0.3)

VARIANTS: Mapping[str, Variant] = {
    f"{PREFIX}Main-v3": Variant(),
    f"{PREFIX}Single-v1": Variant(objects=ONE, tables=ONE),
    f"{PREFIX}MainCarrot-v3": Variant(tables=ONE),
    f"{PREFIX}MainImage-v3": Variant(objects=ONE),
    f"{PREFIX}VisionImage-v1": replace(_SEEN, tables=TABLES),
    f"{PREFIX}VisionTexture03-v1": _BOX,
    f"{PREFIX}VisionTexture05-v1": replace(_BOX, texture_ratio=0.5),
    f"{PREFIX}VisionWhole03-v1": replace(_BOX, texture_mode="whole"),
    f"{PREFIX}VisionWhole05-v1": replace(_BOX, texture_mode="whole", texture_ratio=0.5),
    f"{PREFIX}Carrot-v1": replace(_SEEN, objects=OBJECTS),
    f"{PREFIX}Instruct-v1": replace(_SEEN, extra="template", extras=UNSEEN),
    f"{PREFIX}Plate-v1": replace(_SEEN, plates=UNSEEN),
    f"{PREFIX}MultiCarrot-v1": replace(_SEEN, objects=OBJECTS, layout="two_objects", extra="object"),
    f"{PREFIX}MultiPlate-v1": replace(_SEEN, plates=UNSEEN, tables=Values(21, 21), layout="two_plates", extra="plate"),
    f"{PREFIX}Position-v1": replace(_SEEN, layout="ring"),
    f"{PREFIX}EEPose-v1": replace(_SEEN, extra="qpos", extras=Values(1, 14376)),
    f"{PREFIX}PositionChangeTo-v1": replace(_SEEN, layout="two_objects", moves=("test", "all")),
}
"""Environment id -> what it is."""


def variant_of(env_id: str, obj_set: str) -> Variant:
    """Look an id up; EnvSetupError where it is not in the family, or there is no such split."""
    if obj_set not in SPLITS:
        raise EnvSetupError(f"env.make_kwargs obj_set = {obj_set!r}; allowed: {', '.join(SPLITS)}")
    if env_id not in VARIANTS:
        raise unknown("env.id", env_id, VARIANTS)
    return VARIANTS[env_id]
