"""How a setting is declared: its default, meaning and limits side by side."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def opt(default: Any, doc: str, **limits: Any) -> Any:
    """Declare a setting.

    Args:
        default: its default; lists and dicts are copied per instance.
        doc: one sentence, with the unit.
        limits: any of ``ge``, ``gt``, ``le``, ``lt`` (numbers), ``choices`` (tuple), ``min_len``, ``length`` (lists).
    """
    metadata = {"doc": doc, **limits}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)
