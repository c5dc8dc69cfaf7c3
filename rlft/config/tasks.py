"""Which file of configs/task/ serves an environment id, so that ``env.id`` alone is enough on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml


def task_serving(env_id: str, roots: Sequence[Path]) -> str | None:
    """The task file for an environment id.

    Args:
        env_id: the simulator's id.
        roots: configuration directories; the first that has a file wins.

    Returns:
        the name of the file in ``task/`` that sets ``env.id`` to it, else of one whose ``serves`` has a pattern that
        fits it, else None.
    """
    files = [(file.stem, read_yaml(file)) for root in roots for file in sorted((root / "task").glob("*.yaml"))]
    own = (name for name, task in files if _own_id(task) == env_id)
    family = (name for name, task in files if any(fnmatchcase(env_id, x) for x in task.get("serves", ())))
    return next(own, None) or next(family, None)


def shipped_ids(root: Path) -> frozenset[str]:
    """The environment ids that the task files below a configuration directory name."""
    ids = (_own_id(read_yaml(file)) for file in (root / "task").glob("*.yaml"))
    return frozenset(env_id for env_id in ids if env_id is not None)


def takes_a_task(file: Path) -> bool:
    """Whether an entry's defaults list has a task that can be chosen."""
    defaults = read_yaml(file).get("defaults")
    return (
        any("task" in entry for entry in defaults if isinstance(entry, dict)) if isinstance(defaults, list) else False
    )


def _own_id(task: dict[str, Any]) -> str | None:
    env = task.get("env")
    return env.get("id") if isinstance(env, dict) else None


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file's top level; a broken one is reported where it is composed."""
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
