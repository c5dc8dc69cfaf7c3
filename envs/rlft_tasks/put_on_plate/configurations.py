"""Numbered configurations: what an ``episode_id`` shows. No simulator is loaded.

A number is read as digits of a mixed radix: object, plate, table, position, yaw, the last fastest. An extra digit
stands after the object, or after the plate where it chooses a second plate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from rlft.types import ConfigurationSpace, EnvSettings
from rlft_envs.assets import folder_of
from rlft_tasks.put_on_plate.layouts import layout, qpos_offsets
from rlft_tasks.put_on_plate.library import Library, Model, Table, load_library
from rlft_tasks.put_on_plate.variants import PREFIX, TEMPLATES, check_split, variant_of


@dataclass(frozen=True)
class Digits:
    """The indices that a number stands for, into the lists of objects, plates, tables, places and headings.

    ``extra`` is the index that the extra digit chooses, in the list of what it chooses; 0 where there is none.
    """

    object: int
    plate: int
    table: int
    position: int
    yaw: int
    extra: int = 0


@dataclass(frozen=True)
class Configuration:
    """What one number shows.

    Attributes:
        digits: the indices.
        object: what is to be moved.
        plate: where it is to go.
        table: the picture behind.
        extra: a distractor, or None.
        extra_is: ``object`` or ``plate``.
        object_at, plate_at, extra_at: where they are dropped, metres, xyz.
        moves_to: where the object jumps to after some steps, xyz, or None.
        yaw: heading of the objects, radians; plates have none.
        texture: the table whose texture is blended in, or None.
        qpos_offset: offsets of the six arm joints, radians.
        instruction: the language instruction.
    """

    digits: Digits
    object: Model
    plate: Model
    table: Table
    extra: Model | None
    extra_is: str | None
    object_at: tuple[float, ...]
    plate_at: tuple[float, ...]
    extra_at: tuple[float, ...] | None
    moves_to: tuple[float, ...] | None
    yaw: float
    texture: Table | None
    qpos_offset: tuple[float, ...]
    instruction: str


class Numbering:
    """The digits of a variant's numbers in one split; needs no assets.

    Raises:
        EnvSetupError: unknown id or split.
    """

    def __init__(self, env_id: str, obj_set: str) -> None:
        self.env_id, self.obj_set, self.variant = env_id, check_split(obj_set), variant_of(env_id)
        v, self.layout = self.variant, layout(self.variant.layout)
        ranges = {
            "object": v.objects.of(obj_set),
            "plate": v.plates.of(obj_set),
            "table": v.tables.of(obj_set),
            "position": self.layout.positions(obj_set),
            "yaw": self.layout.headings(obj_set),
        }
        self._others = 0  # how many the distractor is chosen among, itself included
        if v.extras is not None:
            ranges["extra"] = v.extras.of(obj_set)
        elif v.extra == "object":
            self._others = ranges["object"][1]
            ranges["extra"] = (0, self._others - 1)
        elif v.extra == "plate":
            self._others = 17 if obj_set == "train" else ranges["plate"][1]
            ranges["extra"] = (0, self._others - 1)
        self.objects = range(ranges["object"][0], sum(ranges["object"]))
        first = ranges["plate"][0]
        self.plates = range(first, first + (self._others if v.extra == "plate" else ranges["plate"][1]))
        order = ["object", "plate", "table", "position", "yaw"]
        if v.extra is not None:
            order.insert(2 if v.extra == "plate" else 1, "extra")
        self._digits = [(name, *ranges[name]) for name in order]

    def __len__(self) -> int:
        return prod(self.sizes.values())

    @property
    def sizes(self) -> Mapping[str, int]:
        """Digit -> how many values it takes; the slowest first."""
        return {name: size for name, _, size in self._digits}

    def __getitem__(self, i: int) -> Digits:
        """Read a number.

        Raises:
            IndexError: it is not in ``0..len - 1``.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"episode_id = {i}; {self.env_id} has 0..{len(self) - 1} for obj_set={self.obj_set}")
        rest, values, first = i, {}, {}
        for name, low, size in reversed(self._digits):
            rest, digit = divmod(rest, size)
            values[name], first[name] = low + digit, low
        if self.variant.extra == "object":
            # The published formula adds the object's index to the digit, not its digit: in the test split one
            # distractor in eight is the object itself.
            values["extra"] = first["object"] + (values["object"] + values["extra"] + 1) % self._others
        elif self.variant.extra == "plate":
            digit = values["plate"] - first["plate"]
            values["extra"] = first["plate"] + (digit + values["extra"] + 1) % self._others
        return Digits(**values)


class Configurations:
    """A variant's configurations in one split: ``len(c)`` of them, ``c[i]`` each."""

    def __init__(self, numbering: Numbering, library: Library) -> None:
        self.numbering, self.library = numbering, library

    def __len__(self) -> int:
        return len(self.numbering)

    def __getitem__(self, i: int) -> Configuration:
        """What number i shows.

        Raises:
            IndexError: it is not in ``0..len - 1``.
        """
        d, v, lib, lay = self.numbering[i], self.numbering.variant, self.library, self.numbering.layout
        thing, plate = lib.objects[d.object], lib.plates[d.plate]
        places = [(float(x), float(y), z) for (x, y), z in zip(lay.xy[d.position], lay.heights)]
        extra = (
            {"object": lib.objects, "plate": lib.plates}[v.extra][d.extra] if v.extra in ("object", "plate") else None
        )
        if extra == thing:  # see Numbering: published as one actor, put where the distractor would be
            places[0], extra = places[2], None
        template = TEMPLATES[d.extra if v.extra == "template" else 0]
        offset = qpos_offsets()[d.extra] if v.extra == "qpos" else (0.0,) * 6
        return Configuration(
            digits=d,
            object=thing,
            plate=plate,
            table=lib.tables[d.table],
            extra=extra,
            extra_is=v.extra if extra is not None else None,
            object_at=places[0],
            plate_at=places[1],
            extra_at=places[2] if extra is not None else None,
            moves_to=places[2] if self.numbering.obj_set in v.moves else None,
            yaw=lay.yaws[d.yaw],
            texture=lib.tables[d.extra] if v.extra == "texture" else None,
            qpos_offset=tuple(float(x) for x in offset),
            instruction=template.format(object=thing.name, plate=plate.name),
        )

    def models(self) -> tuple[list[Model], list[Model]]:
        """Everything that these configurations can show: objects, and plates."""
        objects, plates = self.numbering.objects, self.numbering.plates
        return [self.library.objects[k] for k in objects], [self.library.plates[k] for k in plates]

    def labels(self, i: int) -> Mapping[str, str]:
        """What an evaluation groups number i by: ``object``, ``plate``, ``table`` and ``variant``."""
        d, lib = self.numbering[i], self.library
        variant = self.numbering.env_id.removeprefix(PREFIX).split("-")[0]
        detail = self._detail(d)
        return {
            "object": lib.objects[d.object].name,
            "plate": lib.plates[d.plate].name,
            "table": Path(lib.tables[d.table].key).stem,
            "variant": f"{variant}, {detail}" if detail else variant,
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
        if v.extra is not None:
            if v.extra == "object" and d.extra == d.object:
                return "beside nothing"
            return f"beside {(lib.objects if v.extra == 'object' else lib.plates)[d.extra].name}"
        if v.layout == "ring":
            return "outer places" if d.position >= self.numbering.layout.n_grid else "inner places"
        return "object jumps" if self.numbering.obj_set in v.moves else ""


def numbered(env_id: str, obj_set: str, assets_root: Path) -> Configurations:
    """The configurations of an id of the family in a split.

    Raises:
        EnvSetupError: unknown id or split, or missing assets.
    """
    return Configurations(Numbering(env_id, obj_set), load_library(Path(assets_root)))


def configuration_space(settings: EnvSettings) -> ConfigurationSpace:
    """What ``reset(..., episode_ids)`` addresses; errors as of :func:`numbered`."""
    root = folder_of(settings, "put_on_plate").parent
    options = {"obj_set": "train", **settings.make_kwargs}
    found = numbered(settings.env_id, str(options["obj_set"]), root)
    return ConfigurationSpace(found.numbering.sizes, found.labels, ("object", "plate", "table"))
