"""Which file of configs/task/ serves an environment id, so that ``env.id`` alone is enough on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

FAMILIES = {
    "PutOnPlateInScene25*-v*": "put_on_plate",
    "*InScene-v1": "widowx",
    "gym_aloha/Aloha*-v0": "aloha",
}
"""Pattern of ids -> the task file that serves them all, beside the files that name one id."""


def task_serving(env_id: str, roots: Sequence[Path]) -> str | None:
    """The task file for an environment id.

    Args:
        env_id: the simulator's id.
        roots: configuration directories; the first that has a file wins.

    Returns:
        the name of the file in ``task/`` that sets ``env.id`` to it itself, else that of its family, else None.
    """
    for root in roots:
        for file in sorted((root / "task").glob("*.yaml")):
            if _own_id(file) == env_id:
                return file.stem
    return next((name for pattern, name in FAMILIES.items() if fnmatchcase(env_id, pattern)), None)


def shipped_ids(root: Path) -> frozenset[str]:
    """The environment ids that the task files below a configuration directory name."""
    return frozenset(env_id for file in (root / "task").glob("*.yaml") if (env_id := _own_id(file)) is not None)


def takes_a_task(file: Path) -> bool:
    """Whether an entry's defaults list has a task that can be chosen."""
    defaults = _read(file).get("defaults")
    entries = defaults if isinstance(defaults, list) else []
    return any(isinstance(entry, dict) and "task" in entry for entry in entries)


def _own_id(file: Path) -> str | None:
    env = _read(file).get("env")
    return env.get("id") if isinstance(env, dict) else None


def _read(file: Path) -> dict:
    """A YAML file's top level; a broken one is reported where it is composed."""
    import yaml

    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
