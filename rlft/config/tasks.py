"""Which file of configs/task/ serves an environment id, so that ``env.id`` alone is enough on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml


def task_serving(env_id: str, roots: Sequence[Path]) -> str | None:
    """The file in ``task/`` that sets ``env.id`` to an id, else one whose ``serves`` has a pattern that fits it.

    The first of the configuration directories ``roots`` that has a file wins; None where none has.
    """
    files = [(file.stem, _read_yaml(file)) for root in roots for file in sorted((root / "task").glob("*.yaml"))]
    own = (name for name, task in files if isinstance(env := task.get("env"), dict) and env.get("id") == env_id)
    family = (name for name, task in files if any(fnmatchcase(env_id, x) for x in task.get("serves", ())))
    return next(own, None) or next(family, None)


def takes_a_task(file: Path) -> bool:
    """Whether an entry's defaults list has a task that can be chosen."""
    defaults = _read_yaml(file).get("defaults")
    return isinstance(defaults, list) and any("task" in entry for entry in defaults if isinstance(entry, dict))


def _read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file's top level; a broken one is reported where it is composed."""
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
