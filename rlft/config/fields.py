"""Reading the schema: its dotted keys, types and limits, in words. No values here."""

import types
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic.dataclasses
from pydantic.fields import FieldInfo

from rlft import plugins
from rlft.config.base import PluginName
from rlft.config.schema import RunConfig

WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", dict: "mapping", Literal: "text"}
LIMITS = {"ge": ">= {:g}", "gt": "> {:g}", "le": "<= {:g}", "lt": "< {:g}"}


@dataclass(frozen=True)
class Setting:
    """One declared setting."""

    path: str  # dotted key; the settings of a list of sections stand below `env.cameras[]`
    info: FieldInfo  # pydantic's record of it: default, meaning, limits
    kind: Any  # its type, without null; of a list, that of an entry
    is_list: bool  # whether it is a list of these
    optional: bool  # whether it may be null

    @property
    def is_section(self) -> bool:
        """Whether settings stand below it."""
        return is_dataclass(self.kind) or hasattr(self.kind, "__pydantic_fields__")

    @property
    def doc(self) -> str:
        """Its meaning; a section says it in its class."""
        text = self.info.description or (self.kind.__doc__ if self.is_section else "") or ""
        return str(text).partition("\n")[0]

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that are allowed; empty where they are not counted."""
        if get_origin(self.kind) is Literal:
            return get_args(self.kind)
        marks = [mark for mark in self.info.metadata if isinstance(mark, PluginName)]
        return (*plugins.names(marks[0].kind), "package.module:Name") if marks else ()

    @property
    def default(self) -> str:
        """Its default, as one would write it on the command line."""
        value: Any = self.info.get_default(call_default_factory=True)
        if isinstance(value, list):
            return "[" + ", ".join("{...}" if is_dataclass(x) else str(x) for x in value) + "]"
        if value is None or isinstance(value, bool):
            return {None: "null", True: "true", False: "false"}[value]
        return "???" if self.info.is_required() else f"{value:g}" if isinstance(value, float) else str(value)

    def type_text(self, *, entry: bool = False) -> str:
        """Its type in words, or that of an entry of the list."""
        kind = get_origin(self.kind) or self.kind
        word = str("section" if self.is_section else WORDS.get(kind) or getattr(kind, "__name__", kind))
        if entry:
            return word
        return (f"list of {word}s" if self.is_list else word) + (" or null" if self.optional else "")

    def limits_text(self) -> str:
        """Its limits in words, or an empty string."""
        bounds = {key: getattr(mark, key) for mark in self.info.metadata for key in _BOUNDS if hasattr(mark, key)}
        parts = [form.format(bounds[key]) for key, form in LIMITS.items() if key in bounds]
        parts += [f"one of {', '.join(self.choices)}"] if self.choices else []
        if "max_length" in bounds:
            parts.append(f"exactly {bounds['max_length']} entries")
        elif "min_length" in bounds:
            parts.append(f"at least {bounds['min_length']} entries")
        return " and ".join(parts)


_BOUNDS = (*LIMITS, "min_length", "max_length")


def settings(cls: type = RunConfig, prefix: str = "") -> Iterator[Setting]:
    """Every setting below a class of settings, sections included, in the order of declaration."""
    if is_dataclass(cls) and not hasattr(cls, "__pydantic_fields__"):
        frozen = cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
        cls = pydantic.dataclasses.dataclass(cls, frozen=frozen)  # a plug-in's plain dataclass
    for name, info in cls.__pydantic_fields__.items():  # type: ignore[attr-defined]
        kind, optional = _strip(info.annotation)
        is_list = get_origin(kind) in (list, tuple)
        setting = Setting(f"{prefix}{name}", info, _strip(get_args(kind)[0])[0] if is_list else kind, is_list, optional)
        yield setting
        if setting.is_section:
            yield from settings(setting.kind, f"{setting.path}[]." if is_list else f"{setting.path}.")


@cache
def known() -> dict[str, Setting]:
    """All settings by their dotted keys."""
    return {setting.path: setting for setting in settings()}


def settings_lines() -> list[str]:
    """All settings in plain text, one or two lines each, for ``--help``."""
    lines: list[str] = []
    for x in settings():
        limits = f" [{text}]" if (text := x.limits_text()) else ""
        lines += ["", f"  {x.path}: {x.doc}"] if x.is_section else [f"    {x.path} = {x.default}: {x.doc}{limits}"]
    return lines


def _strip(kind: Any) -> tuple[Any, bool]:
    """A type without ``Annotated`` and without null, and whether it had null."""
    if get_origin(kind) is Annotated:
        return _strip(get_args(kind)[0])
    if isinstance(kind, types.UnionType) or get_origin(kind) is Union:
        rest = [x for x in get_args(kind) if x is not type(None)]
        return (_strip(rest[0])[0], len(rest) < len(get_args(kind))) if len(rest) == 1 else (Any, True)
    return kind, False
