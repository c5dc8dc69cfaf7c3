"""Reading the schema: its dotted keys, types and limits. No values here."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin

from rlft.config.schema import RunConfig


@dataclass(frozen=True)
class Setting:
    """One declared setting.

    Attributes:
        path: dotted key; a list of sections is written ``env.cameras[]``.
        field: the dataclass field (default and metadata).
        type: the declared type, resolved.
    """

    path: str
    field: Field[Any]
    type: Any


@cache
def hints(cls: type) -> dict[str, Any]:
    """Resolved type of every field of a schema dataclass."""
    return typing.get_type_hints(cls)


def split_optional(kind: Any) -> tuple[Any, bool]:
    """``X | None`` -> (X, True); anything else -> (itself, False)."""
    if isinstance(kind, types.UnionType) or get_origin(kind) is typing.Union:
        rest = [x for x in get_args(kind) if x is not type(None)]
        if len(rest) != 1:
            raise TypeError(f"the schema knows only 'X | None' unions, not {kind}")
        return rest[0], True
    return kind, False


def section_of(kind: Any) -> type | None:
    """The schema dataclass behind a type (also of ``X | None`` and ``list[X]``), or None for a plain setting."""
    inner, _ = split_optional(kind)
    if get_origin(inner) is list:
        inner = get_args(inner)[0]
    return inner if is_dataclass(inner) and isinstance(inner, type) else None


def settings(cls: type = RunConfig, prefix: str = "") -> Iterator[Setting]:
    """Every setting below a schema class, sections included, in the order of declaration."""
    for field in fields(cls):
        kind = hints(cls)[field.name]
        path = prefix + field.name
        yield Setting(path, field, kind)
        section = section_of(kind)
        if section is not None:
            many = get_origin(split_optional(kind)[0]) is list
            yield from settings(section, f"{path}[]." if many else f"{path}.")


@cache
def known_keys() -> tuple[str, ...]:
    """Dotted keys of all settings."""
    return tuple(setting.path for setting in settings())


def describe_type(kind: Any) -> str:
    """A type in words for messages and docs, without its limits."""
    inner, optional = split_optional(kind)
    if get_origin(inner) is list:
        text = f"list of {_plural(get_args(inner)[0])}"
    elif get_origin(inner) is dict:
        text = "mapping"
    elif is_dataclass(inner):
        text = "section"
    else:
        text = {bool: "true or false", int: "whole number", float: "number", str: "text"}[inner]
    return f"{text} or null" if optional else text


def _plural(kind: Any) -> str:
    return "sections" if is_dataclass(kind) else {int: "whole numbers", float: "numbers", str: "texts"}[kind]


def describe_limits(field: Field[Any]) -> str:
    """The limits of a setting in words, or an empty string."""
    meta = field.metadata
    parts = [
        f"{sign} {meta[key]:g}" for key, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")) if key in meta
    ]
    if "choices" in meta:
        parts.append("one of " + ", ".join(meta["choices"]))
    if "length" in meta:
        parts.append(f"exactly {meta['length']} entries")
    if "min_len" in meta:
        parts.append(f"at least {meta['min_len']} entries")
    return " and ".join(parts)
