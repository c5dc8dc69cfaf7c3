"""The configuration files: where they are, the groups, and which task's file an environment id asks for."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

PLACES = [parent / "configs" for parent in Path(__file__).resolve().parents[1:3]]  # in a wheel; in a checkout
CONFIG_DIR = next((place.resolve() for place in PLACES if place.is_dir()), PLACES[0])


def roots(config_dir: Path | None) -> list[Path]:
    """One's own directory, if there is one, and configs/; a file of the first hides one of the same name."""
    return [CONFIG_DIR] if config_dir is None else [config_dir.resolve(), CONFIG_DIR]


def group_choices(config_dir: Path | None = None) -> dict[str, list[str]]:
    """Config groups and the choices in each, from configs/ and one's own directory."""
    found: dict[str, set[str]] = {}
    for root in roots(config_dir):
        for file in root.glob("*/*.yaml"):
            found.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(found[group]) for group in sorted(found)}


def task_serving(env_id: str, config_dir: Path | None = None) -> str | None:
    """The file in ``task/`` that sets ``env.id`` to an id, else one whose ``serves`` has a pattern that fits it."""
    found = [file for root in roots(config_dir) for file in sorted((root / "task").glob("*.yaml"))]
    files = [(file.stem, _read_yaml(file)) for file in found]
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
