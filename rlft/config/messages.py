"""From a plain tree of values to typed settings; what pydantic finds wrong, in our words, all of it at once."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from rlft.config.fields import Setting, settings
from rlft.config.renamed import advice
from rlft.errors import ConfigError, did_you_mean

NULL_WORDS = ("none", "nil", "~")
# What pydantic's kinds of errors end with.
LIMITS = ("_than", "_than_equal", "too_short", "too_long", "literal_error", "plugin_name")
WRONG_TYPE = ("_type", "_parsing", "_from_float", "finite_number")
UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def typed[T](cls: type[T], tree: Mapping[str, Any], section: str = "") -> T:
    """Build an object of settings: the schema's root, or a plug-in's ``Options``.

    Its class is a dataclass or model of pydantic or a plain dataclass, whose fields may carry limits and meaning. Keys
    that the tree of resolved values lacks take their defaults. ``section`` is its dotted path, or empty at the root.

    Raises:
        ConfigError: unknown keys, wrong types, values out of range; every one is named.
    """
    prefix = f"{section}." if section else ""
    known = {setting.path: setting for setting in settings(cls, prefix)}
    leaves = list(_leaves(tree, section))
    if targets := [path for path, _ in leaves if "_target_" in path.split(".")]:
        raise ConfigError([f"{path}: _target_ keys are refused: settings name no code to run" for path in targets])
    errors: list[ErrorDetails] = []
    built: T | None = None
    try:
        built = TypeAdapter(cls).validate_python(dict(tree))
    except ValidationError as error:
        errors = error.errors(include_url=False)
    unknown = dict(_unknown(tree, prefix, known))  # looked for here: not every class of a plug-in forbids them
    problems = [text for path, value in unknown.items() for text in _no_such(path, value, known)]
    skipped = tuple(f"{path}." for path in unknown)
    texts = [(path, value) for path, value in leaves if isinstance(value, str) and not f"{path}.".startswith(skipped)]
    words = {path: value for path, value in texts if value.lower() in NULL_WORDS}  # other languages' words for null
    for path, value in words.items():
        setting = _find(path, known)
        remedy = "write null" if setting is None or setting.optional else _no_null(setting)
        problems.append(f"{path} = {value!r}: this is text, not an empty setting; {remedy}")
    for found in errors:
        path = prefix + ".".join(str(part) for part in found["loc"])
        if found["type"] not in UNKNOWN and path not in words:
            problems.append(_problem(path, found, known))
    if problems or built is None:
        raise ConfigError(problems)
    return built


def _problem(path: str, found: ErrorDetails, known: Mapping[str, Setting]) -> str:
    value, kind, setting = found["input"], found["type"], _find(path, known)
    if kind in ("missing", "missing_argument"):
        return f"{path}: must be given"
    if setting is None or not kind.endswith((*LIMITS, *WRONG_TYPE)):
        return f"{path} = {value!r}: {found['msg'].removeprefix('Value error, ')}"
    entry = path.rpartition(".")[2].isdigit()
    if value is None:
        return f"{path} = null: {_no_null(setting)}"
    limits = "" if entry else setting.limits_text()
    if kind.endswith(LIMITS):
        return f"{path} = {value!r}: must be {limits}" + did_you_mean(value, setting.choices)
    text = f"{path} = {value!r}: expected {setting.type_text(entry=entry)}{f', {limits}' if limits else ''}"
    if kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        text += f"; quote it to make it text: {path}=\"'{value}'\""
    return text


def _no_null(setting: Setting) -> str:
    return f"expected {setting.type_text()}; this setting has no null"


def _find(path: str, known: Mapping[str, Setting]) -> Setting | None:
    """The setting at a path, or the list that holds it as an entry."""
    key = _generic(path)
    return known.get(key) or known.get(key.removesuffix("[]"))


def _unknown(tree: Mapping[str, Any], prefix: str, known: Mapping[str, Setting]) -> Iterator[tuple[str, Any]]:
    """The keys that no section has, with their values."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        setting = known.get(_generic(path))
        if setting is None:
            yield path, value
        elif setting.is_section:
            for place, item in enumerate(value) if isinstance(value, list) else [("", value)]:
                if isinstance(item, Mapping):
                    yield from _unknown(item, f"{path}.{place}.".replace("..", "."), known)


def _no_such(path: str, value: Any, known: Iterable[str]) -> list[str]:
    """Messages for a key that the schema does not have: what it is called now, or the nearest keys."""
    told = list(dict.fromkeys(text for leaf, _ in _leaves(value, path) if (text := advice(leaf)) is not None))
    return told or [f"{path}: no such setting{_nearest_keys(path, known)}"]


def _generic(path: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", "[]", path)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping | list) and value:
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _nearest_keys(path: str, known: Iterable[str]) -> str:
    """As :func:`rlft.errors.did_you_mean`, for a key that may be misspelled or in the wrong section."""
    parent, _, name = _generic(path).rpartition(".")

    def likeness(key: str) -> float:
        key_parent, _, key_name = key.rpartition(".")
        # A misspelling in the right section is likelier than a key of another section.
        return difflib.SequenceMatcher(None, key_name, name).ratio() * (1.0 if key_parent == parent else 0.9)

    ranked = sorted(((likeness(key), key) for key in known), key=lambda pair: -pair[0])[:3]
    near = [key for score, key in ranked if score >= 0.7 and score >= ranked[0][0] - 0.05]
    return f"; did you mean {' or '.join(near)}?" if near else ""
