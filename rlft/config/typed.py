"""From a plain tree of values to the typed schema; every problem is collected with its field path."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_args, get_origin

from rlft.config.fields import describe_limits, describe_type, hints, known_keys, split_optional
from rlft.config.renamed import advice

NULL_WORDS = ("none", "nil", "~")


def build_section(cls: type, tree: Mapping[str, Any], prefix: str, problems: list[str]) -> Any:
    """Build one schema dataclass.

    Args:
        cls: the schema class.
        tree: resolved values; missing keys take their defaults.
        prefix: dotted path of the section with its final dot, or an empty string at the root.
        problems: collects messages; the returned object is usable only while it stays empty.
    """
    declared = {field.name: field for field in fields(cls)}
    values: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if key in declared:
            values[key] = _build(hints(cls)[key], value, path, declared[key], problems)
        else:
            problems.extend(_unknown(path, value))
    for name, field in declared.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            problems.append(f"{prefix}{name}: must be given")
    return cls(**values) if not problems else None


def _build(kind: Any, value: Any, path: str, field: Field[Any] | None, problems: list[str]) -> Any:
    inner, optional = split_optional(kind)
    if value is None:
        if not optional:
            problems.append(f"{path} = null: expected {describe_type(inner)}; this setting has no null")
        return None
    if isinstance(value, str) and value.lower() in NULL_WORDS:
        remedy = "write null" if optional else f"expected {describe_type(inner)}, and this setting has no null"
        problems.append(f"{path} = {value!r}: this is text, not an empty setting; {remedy}")
        return None
    if is_dataclass(inner) and isinstance(inner, type):
        if isinstance(value, Mapping):
            return build_section(inner, value, f"{path}.", problems)
    elif get_origin(inner) is list:
        if isinstance(value, list):
            item = get_args(inner)[0]
            built = [_build(item, x, f"{path}.{i}", None, problems) for i, x in enumerate(value)]
            return _within(built, path, field, problems)
    elif get_origin(inner) is dict:
        if isinstance(value, Mapping):
            _check_free_mapping(value, path, problems)
            return dict(value)
    else:
        converted = _scalar(inner, value)
        if converted is not None:
            return _within(converted, path, field, problems)
    problems.append(_wrong_type(kind, value, path, field))
    return None


def _scalar(kind: type, value: Any) -> Any:
    """The value as ``kind`` where that loses nothing, else None."""
    if kind is bool or isinstance(value, bool):
        return value if kind is bool and isinstance(value, bool) else None
    if kind is int:
        # 1e3 is parsed as a float by YAML and by the command line; it is a whole number all the same.
        return int(value) if isinstance(value, int) or (isinstance(value, float) and value.is_integer()) else None
    if kind is float:
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    return value if isinstance(value, kind) else None


def _within(value: Any, path: str, field: Field[Any] | None, problems: list[str]) -> Any:
    meta = field.metadata if field is not None else {}
    bad = (
        ("ge" in meta and value < meta["ge"])
        or ("gt" in meta and value <= meta["gt"])
        or ("le" in meta and value > meta["le"])
        or ("lt" in meta and value >= meta["lt"])
        or ("choices" in meta and value not in meta["choices"])
        or ("min_len" in meta and len(value) < meta["min_len"])
        or ("length" in meta and len(value) != meta["length"])
    )
    if bad and field is not None:
        hint = _nearest(value, meta["choices"]) if "choices" in meta else []
        problems.append(f"{path} = {value!r}: must be {describe_limits(field)}" + _did_you_mean(hint))
    return value


def _wrong_type(kind: Any, value: Any, path: str, field: Field[Any] | None) -> str:
    limits = describe_limits(field) if field is not None else ""
    text = f"{path} = {value!r}: expected {describe_type(kind)}{f', {limits}' if limits else ''}"
    inner, _ = split_optional(kind)
    if inner is str and isinstance(value, int | float) and not isinstance(value, bool):
        text += f"; quote it to make it text: {path}=\"'{value}'\""
    return text


def _check_free_mapping(value: Any, path: str, problems: list[str]) -> None:
    """A mapping without a schema: its values are checked by who uses it, only the universal mistakes here."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_free_mapping(item, f"{path}.{key}", problems)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_free_mapping(item, f"{path}.{i}", problems)
    elif isinstance(value, str) and value.lower() in NULL_WORDS:
        problems.append(f"{path} = {value!r}: this is text; write null")


def _unknown(path: str, value: Any) -> list[str]:
    """Messages for a key that the schema does not have: what it is called now, or the nearest keys."""
    leaves = [path]
    if isinstance(value, Mapping) and value:
        leaves = [f"{path}.{leaf}" for leaf in _leaves(value)]
    told = list(dict.fromkeys(text for leaf in leaves if (text := advice(leaf)) is not None))
    if told:
        return told
    return [f"{path}: no such setting" + _did_you_mean(nearest_keys(path))]


def _leaves(tree: Mapping[str, Any]) -> list[str]:
    out: list[str] = []
    for key, value in tree.items():
        out += [f"{key}.{x}" for x in _leaves(value)] if isinstance(value, Mapping) and value else [str(key)]
    return out


def nearest_keys(path: str, count: int = 3) -> list[str]:
    """The settings that a misspelled or misplaced key may have meant, best first; an empty list for no idea."""
    generic = re.sub(r"\.\d+(?=\.|$)", "[]", path)
    parent, _, name = generic.rpartition(".")

    def likeness(key: str) -> float:
        key_parent, _, key_name = key.rpartition(".")
        # A misspelling in the right section is likelier than a key of another section.
        return difflib.SequenceMatcher(None, key_name, name).ratio() * (1.0 if key_parent == parent else 0.9)

    ranked = sorted(((likeness(key), key) for key in known_keys()), key=lambda pair: -pair[0])[:count]
    return [key for score, key in ranked if score >= 0.7 and score >= ranked[0][0] - 0.05]


def _nearest(value: Any, choices: tuple[str, ...]) -> list[str]:
    return difflib.get_close_matches(str(value), choices, n=1, cutoff=0.6)


def _did_you_mean(names: list[str]) -> str:
    return f"; did you mean {' or '.join(names)}?" if names else ""
