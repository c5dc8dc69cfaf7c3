"""Keys that had another name, and those that have no meaning any more (renamed.yaml)."""

import logging
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
    key = path
    while key and key not in REPLACED:
        key = key.rpartition(".")[0]
    return f"{path}: not a setting here: {REPLACED[key]}" if key else None


def take_old(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Take every accepted old key out of a tree of settings; present path -> value."""
    old: dict[str, Any] = {}
    for key, value in list(tree.items()):
        path = f"{prefix}{key}"
        if path in ALIASES:
            old[current_path(path)] = tree.pop(key)
        elif isinstance(value, dict) and value:
            old |= take_old(value, f"{path}.")
            if not value:  # a section that only held old keys goes with them
                del tree[key]
    return old
