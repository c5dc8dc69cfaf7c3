"""Numbered configurations: what a number shows. No simulator is loaded.

A number is read as digits of a mixed radix: object, plate, table, position, yaw, the last fastest. An extra digit
stands after the object, or after the plate where it chooses a second plate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from rlft.types import ConfigurationSpace, EnvSettings
from rlft_tasks.put_on_plate.layouts import layout, qpos_offsets
from rlft_tasks.put_on_plate.library import Model, Table, load_library
from rlft_tasks.put_on_plate.variants import PREFIX, TEMPLATES, variant_of


@dataclass(frozen=True)
class Digits:
    """The indices that a number stands for, into the lists of objects, plates, tables, places and headings."""

    object: int
    plate: int
    table: int
    position: int
    yaw: int
    extra: int = 0  # what the extra digit chooses, in the list of what it chooses; 0 where there is none


@dataclass(frozen=True)
class Dropped:
    """A thing in the air."""

    model: Model
    at: tuple[float, float, float]  # metres, xyz
    yaw: float = 0.0  # heading, radians; plates have none


@dataclass(frozen=True)
class Configuration:
    """What one number shows."""

    digits: Digits
    things: Mapping[str, Dropped]  # `source` is to be moved, `target` is where to, `extra` is a distractor
    jump: Dropped | None  # the source where it jumps to after some steps
    table: Table  # the photograph behind
    texture: Table | None  # the table whose texture is blended in
    qpos_offset: tuple[float, ...]  # of the six arm joints, radians
    instruction: str


class Numbering:
    """The digits of a variant's numbers in one split; needs no assets. EnvSetupError: unknown id or split."""

    def __init__(self, env_id: str, obj_set: str) -> None:
        self.env_id, self.obj_set, self.variant = env_id, obj_set, variant_of(env_id, obj_set)
        v, self.layout = self.variant, layout(self.variant.layout)
        self.objects = v.objects.of(obj_set)
        self.plates = targets = v.plates.of(obj_set)
        if v.extra == "plate" and obj_set == "train":  # the target is plate 0, but any of the 17 may lie beside it
            self.plates = v.plates.of("all")
        # What the distractor is chosen among, itself included.
        self._others = self.plates if v.extra == "plate" else self.objects
        digits = [  # the values that each takes; the slowest first
            ("object", self.objects),
            ("plate", targets),
            ("table", v.tables.of(obj_set)),
            ("position", self.layout.places.of(obj_set)),
            ("yaw", self.layout.headings.of(obj_set)),
        ]
        if v.extra is not None:
            extras = range(len(self._others) - 1) if v.extras is None else v.extras.of(obj_set)
            digits.insert(2 if v.extra == "plate" else 1, ("extra", extras))
        self._digits = dict(digits)

    def __len__(self) -> int:
        return prod(self.sizes.values())

    @property
    def sizes(self) -> Mapping[str, int]:
        """Digit -> how many values it takes; the slowest first."""
        return {name: len(values) for name, values in self._digits.items()}

    def __getitem__(self, i: int) -> Digits:
        """Read a number; IndexError where it is not in ``0..len - 1``."""
        if not 0 <= i < len(self):
            raise IndexError(f"configuration_id = {i}; {self.env_id} has 0..{len(self) - 1} for obj_set={self.obj_set}")
        at = np.unravel_index(i, tuple(self.sizes.values()))
        values = {name: allowed[digit] for (name, allowed), digit in zip(self._digits.items(), at)}
        if self.variant.distracts:
            # The published formula adds the object's index to the digit, not its digit: in the test split one
            # distractor in eight is the object itself.
            own = values["object"] if self.variant.extra == "object" else values["plate"] - self.plates[0]
            values["extra"] = self._others[(own + values["extra"] + 1) % len(self._others)]
        return Digits(**values)


class Configurations:
    """A variant's configurations in one split: ``len(c)`` of them, ``c[i]`` each. EnvSetupError: missing assets."""

    def __init__(self, env_id: str, obj_set: str, assets_root: str | Path | None) -> None:
        self.numbering, self.library = Numbering(env_id, obj_set), load_library(assets_root)

    def __len__(self) -> int:
        return len(self.numbering)

    def __getitem__(self, i: int) -> Configuration:
        """What number i shows; errors as of :class:`Numbering`."""
        d, v, lib, lay = self.numbering[i], self.numbering.variant, self.library, self.numbering.layout
        places = [(float(x), float(y), z) for (x, y), z in zip(lay.xy[d.position], lay.heights)]
        source = Dropped(lib.objects[d.object], places[0], lay.yaws[d.yaw])
        things = {"source": source, "target": Dropped(lib.plates[d.plate], places[1])}
        if v.extra == "plate":
            things["extra"] = Dropped(lib.plates[d.extra], places[2])
        elif v.extra == "object" and d.extra == d.object:  # published as one actor, put where the distractor would be
            things["source"] = replace(source, at=places[2])
        elif v.extra == "object":
            things["extra"] = Dropped(lib.objects[d.extra], places[2], source.yaw)
        template = TEMPLATES[d.extra if v.extra == "template" else 0]
        offset = qpos_offsets()[d.extra] if v.extra == "qpos" else (0.0,) * 6
        return Configuration(
            digits=d,
            things=things,
            jump=replace(source, at=places[2]) if self.numbering.obj_set in v.moves else None,
            table=lib.tables[d.table],
            texture=lib.tables[d.extra] if v.extra == "texture" else None,
            qpos_offset=tuple(float(x) for x in offset),
            instruction=template.format(object=source.model.name, plate=things["target"].model.name),
        )

    def models(self) -> tuple[list[Model], list[Model]]:
        """Everything that these configurations can show: objects, and plates."""
        numbers, lib = self.numbering, self.library
        return [lib.objects[k] for k in numbers.objects], [lib.plates[k] for k in numbers.plates]

    def labels(self, i: int) -> Mapping[str, str]:
        """What an evaluation groups number i by: ``object``, ``plate``, ``table`` and ``variant``."""
        d, lib = self.numbering[i], self.library
        variant = self.numbering.env_id.removeprefix(PREFIX).split("-")[0]
        return {
            "object": lib.objects[d.object].name,
            "plate": lib.plates[d.plate].name,
            "table": Path(lib.tables[d.table].key).stem,
            "variant": ", ".join(filter(None, (variant, self._detail(d)))),
        }

    def _detail(self, d: Digits) -> str:
        """What a variant varies beside object, plate and table; empty where nothing."""
        v, lib = self.numbering.variant, self.library
        if v.extra == "template":
            return f"phrasing {d.extra}"
        if v.extra == "texture":
            return f"texture {lib.tables[d.extra].texture.stem}"
        if v.extra == "qpos":
            return "arm elsewhere" if d.extra else "arm at home"
        if v.extra == "object":
            return f"beside {'nothing' if d.extra == d.object else lib.objects[d.extra].name}"
        if v.extra == "plate":
            return f"beside {lib.plates[d.extra].name}"
        if v.layout == "ring":
            return "outer places" if d.position >= self.numbering.layout.places.seen else "inner places"
        return "object jumps" if self.numbering.obj_set in v.moves else ""


def configuration_space(settings: EnvSettings) -> ConfigurationSpace:
    """What ``reset(..., configuration_ids)`` addresses; errors as of :class:`Configurations`."""
    obj_set = {"obj_set": "train", **settings.make_kwargs}["obj_set"]
    found = Configurations(settings.env_id, str(obj_set), settings.assets_root)
    return ConfigurationSpace(found.numbering.sizes, found.labels, ("object", "plate", "table"))
