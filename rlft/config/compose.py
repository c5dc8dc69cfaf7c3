"""From files and command line to one plain, fully resolved tree of values. Hydra and OmegaConf stay in here."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

from rlft.config.fields import known
from rlft.config.groups import group_choices, roots, takes_a_task, task_serving
from rlft.config.renamed import current_path, take_old
from rlft.config.schema import RunConfig
from rlft.errors import ConfigError, did_you_mean

MAY_BE_NULL = ("randomization", "recipe", "suite")  # groups of which a run needs no file
GONE = object()  # an entry that ~key takes away


def compose_tree(
    entry: str, overrides: Sequence[str], config_dir: Path | None = None, config_name: str | None = None
) -> dict[str, Any]:
    """Schema defaults, then the entry's YAML with its groups, then the overrides; every interpolation resolved.

    Arguments as of :func:`rlft.config.load.load`; overrides are in Hydra's grammar, ``group=choice`` picks a file.

    Raises:
        ConfigError: a file, group or override cannot be read, or an interpolation cannot be resolved.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such directory")
    choices, values = _split_overrides(overrides, config_dir)
    name = config_name or entry
    root = _root_of(name, config_dir)
    choices += _task_of_id(root / f"{name}.yaml", choices, values, config_dir)
    files = _compose_files(name, root, choices, config_dir)
    files.pop("serves", None)  # which ids a task file is for: data for task_serving
    values = [*take_old(files).items(), *values]
    tree = _merge(asdict(RunConfig()), files)
    if problems := [problem for path, value in values if (problem := _assign(tree, path, value))]:
        raise ConfigError(problems)
    return resolve(tree)


def resolve(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve every ``${...}``; all that cannot be resolved are reported together."""
    problems: list[str] = []

    def visit(node: Any, prefix: str) -> None:
        keys: Iterable[Any] = node if isinstance(node, DictConfig) else range(len(node))
        for key in keys:
            path = f"{prefix}{key}"
            try:
                value = node[key]
            except MissingMandatoryValue:
                setting = known().get(path)
                limits = f": {text}" if setting is not None and (text := setting.limits_text()) else ""
                problems.append(f"{path} = '???': must be given{limits}")
            except InterpolationToMissingValueError:
                continue  # told where it is missing
            except OmegaConfBaseException as error:
                raw: Any = OmegaConf.to_container(node, resolve=False)
                problems.append(f"{path} = {raw[key]!r}: cannot be resolved: {_one_line(error)}")
            else:
                if isinstance(value, Container):
                    visit(value, f"{path}.")

    OmegaConf.register_new_resolver("plain", plain, replace=True)
    config = OmegaConf.create(dict(tree))
    visit(config, "")
    if problems:
        raise ConfigError(problems)
    return dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]


def plain(value: Any) -> str:
    """A text such as ``package.module:Id`` as a part of a file name: letters, digits, ``.``, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", str(value))[-80:].strip("._-") or "task"


def parse_override(text: str) -> Override:
    """One word of the command line in Hydra's grammar.

    Raises:
        ConfigError: it is none.
    """
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        remedy = "quote a value with signs in it: key=\"'a=b'\""
        raise ConfigError(f"{text!r}: not of the form key=value; {remedy}") from error


def _split_overrides(overrides: Sequence[str], config_dir: Path | None) -> tuple[list[str], list[tuple[str, Any]]]:
    """Split into group choices, which Hydra composes, and values, which are ours to check."""
    groups = group_choices(config_dir)
    choices, values, problems = list[str](), list[tuple[str, Any]](), list[str]()
    for text in overrides:
        try:
            override = parse_override(text)
        except ConfigError as error:
            problems += error.problems
            continue
        key = str(override.key_or_group)
        if override.is_sweep_override():
            problems.append(f"{text!r}: several values; add -m to run each, or give a list in brackets: {key}=[...]")
        elif key in groups:
            choice = None if override.is_delete() else override.value()
            choices.append(f"~{key}" if choice is None else f"{key}={choice}")
            if choice not in groups[key] and not (choice is None and key in MAY_BE_NULL):
                hint = did_you_mean(choice, groups[key])
                problems.append(f"{text}: no such choice; {key} is one of {', '.join(groups[key])}{hint}")
        elif override.is_delete():
            path = current_path(key)
            setting = known().get(re.sub(r"\.\d+", "[]", path))
            if setting is not None and not setting.optional:
                problems.append(f"{text!r}: {path} has no null; set {path}=VALUE, or leave it out")
            values.append((path, GONE if setting is None else None))
        else:
            values.append((current_path(key), override.value()))
    if problems:
        raise ConfigError(problems)
    return choices, values


def _root_of(name: str, config_dir: Path | None) -> Path:
    places = roots(config_dir)
    for root in places:
        if (root / f"{name}.yaml").is_file():
            return root
    found = sorted({file.stem for root in places for file in root.glob("*.yaml")})
    raise ConfigError(f"--config-name {name}: no {name}.yaml in {places[0]}; there are {', '.join(found)}")


def _task_of_id(file: Path, choices: list[str], values: list[tuple[str, Any]], config_dir: Path | None) -> list[str]:
    """The task file that ``env.id`` asks for, where no task is named: its controller and cameras go with it."""
    env_id = dict(values).get("env.id")
    if not isinstance(env_id, str) or any(choice.startswith("task=") for choice in choices) or not takes_a_task(file):
        return []
    task = task_serving(env_id, config_dir)
    return [] if task is None else [f"task={task}"]


def _compose_files(name: str, first: Path, choices: list[str], config_dir: Path | None) -> dict[str, Any]:
    # The directory that has the entry's file comes first, and its files win; the other stays reachable.
    others = ", ".join(f"'file://{root}'" for root in roots(config_dir) if root != first)
    search = [f"hydra.searchpath=[{others}]"] if others else []
    try:
        with initialize_config_dir(str(first), version_base="1.3"):
            composed = compose(name, overrides=[*choices, *search])
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
        remedy = "; its defaults list does not name that group" if "defaults list" in str(error) else ""
        raise ConfigError(f"{name}.yaml: {_one_line(error)}{remedy}") from error
    return {str(key): value for key, value in dict(OmegaConf.to_container(composed)).items()}  # type: ignore[arg-type]


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` on top of ``base``: sections merge, anything else (lists too) is replaced."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return out


def _assign(tree: dict[str, Any], path: str, value: Any) -> str | None:
    """Set one dotted key; numbers index lists. Returns the problem, if there is one."""
    parts = path.split(".")
    node: Any = tree
    for depth, part in enumerate(parts):
        last, where = depth == len(parts) - 1, ".".join(parts[:depth])
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                return f"{path}: {where} is a list of {len(node)}; its entries are numbered from 0"
            key: Any = int(part)
        elif isinstance(node, dict):
            key = part
        else:
            return f"{path}: {where} is a single setting, not a section"
        if last and value is GONE:
            if not isinstance(node, dict) or node.pop(key, GONE) is GONE:
                return f"~{path}: there is no such setting"
        elif last:
            old = node[key] if isinstance(node, list) or key in node else None
            if isinstance(old, dict) and not (value is None or isinstance(value, dict)):
                below = ", ".join(f"{path}.{name}" for name in old)
                return f"{path} = {value!r}: {path} is a section; set one of {below}"
            node[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        else:
            if isinstance(node, dict) and node.get(key) is None:
                node[key] = {}  # a section that is off (wandb: null), or an unknown one, which the schema then names
            node = node[key]
    return None


def _one_line(error: BaseException) -> str:
    """Hydra's first line says what is wrong; a YAML error needs all of its lines, for the place."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return "; ".join(lines) if type(error).__module__.startswith("yaml") else lines[0]
