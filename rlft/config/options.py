"""Settings that a plug-in declares itself: ``env.options``, ``model.options`` and ``train.options``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlft import plugins
from rlft.config.messages import typed
from rlft.config.schema import RunConfig
from rlft.errors import ConfigError


def parse_options[T](cls: type[T], mapping: Mapping[str, Any], prefix: str) -> T:
    """A plug-in's options, checked as strictly as settings of the schema.

    ``cls`` is its ``Options``: a dataclass, plain or of pydantic, whose fields may carry limits and meaning; ``prefix``
    says where the settings say it, for instance ``env.options``.

    Raises:
        ConfigError: an unknown key, a wrong type, a value out of range; every one is named.
    """
    return typed(cls, mapping, f"{prefix}.")


def check_options(cfg: RunConfig) -> None:
    """Refuse options that the chosen plug-in does not declare; it is imported only where there are some."""
    problems = []
    for kind, key, name, mapping in (
        ("simulators", "env", cfg.env.simulator, cfg.env.options),
        ("policies", "model", cfg.model.kind, cfg.model.options),
        ("objectives", "train", cfg.train.objective, cfg.train.options),
    ):
        cls = getattr(plugins.load(kind, name), "Options", None) if mapping else None
        try:
            if cls is not None:
                parse_options(cls, mapping, f"{key}.options")
            elif mapping:
                problems.append(f"{key}.options = {mapping}: {name} declares none; remove them")
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
