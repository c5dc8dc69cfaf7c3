"""Settings that a plug-in declares itself, for instance ``train.options``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlft.config.typed import build_section
from rlft.errors import ConfigError


def parse_options[T](cls: type[T], mapping: Mapping[str, Any], prefix: str) -> T:
    """A plug-in's options, checked as strictly as settings of the schema.

    Args:
        cls: its ``Options``, a dataclass.
        mapping: what the settings say.
        prefix: where they say it.

    Raises:
        ConfigError: an unknown key, or a wrong type; every one is named.
    """
    problems: list[str] = []
    options = build_section(cls, mapping, f"{prefix}.", problems)
    if problems:
        raise ConfigError(problems)
    return options
