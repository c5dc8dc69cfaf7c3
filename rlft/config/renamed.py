"""Keys that had another name, and those that have no meaning any more (renamed.yaml)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

log = logging.getLogger(__name__)

_TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
ALIASES: dict[str, str] = _TABLE["aliases"]
"""Old key -> the present one, for those that are accepted."""
REPLACED: dict[str, str] = {
    key: text for text, keys in _TABLE["replaced"].items() for key in ([keys] if isinstance(keys, str) else keys)
}
"""Old key -> what to do instead, for those that are refused."""


def current_path(path: str) -> str:
    """The present spelling of a dotted key; unchanged where it has no alias."""
    if path in ALIASES:
        log.info("%s is called %s here", path, ALIASES[path])
    return ALIASES.get(path, path)


def advice(path: str) -> str | None:
    """What to use instead of a key that has gone, by the longest entry that covers it; None for an unknown key."""
    parts = path.split(".")
    covering = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    key = next((key for key in covering if key in REPLACED), None)
    return None if key is None else f"{path}: not a setting here: {REPLACED[key]}"


def with_current_paths(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a tree of settings in which every accepted old key stands under its present name."""
    moved: dict[str, Any] = {}
    out = _without_old(tree, "", moved)
    for path, value in moved.items():
        *sections, name = path.split(".")
        node = out
        for section in sections:
            if not isinstance(node.get(section), dict):
                node[section] = {}
            node = node[section]
        node[name] = value
    return out


def _without_old(tree: Mapping[str, Any], prefix: str, moved: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if path in ALIASES:
            moved[current_path(path)] = value
        elif isinstance(value, Mapping) and value:
            if kept := _without_old(value, f"{path}.", moved):  # a section that only held old keys goes with them
                out[str(key)] = kept
        else:
            out[str(key)] = value
    return out
