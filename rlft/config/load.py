"""Loading settings: files and command line in, one checked :class:`RunConfig` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlft import plugins
from rlft.config.checks import cross_checks, policy_options
from rlft.config.compose import compose_tree, read_tree
from rlft.config.schema import RunConfig
from rlft.config.typed import build_section
from rlft.errors import ConfigError


def load(
    entry: str,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    config_name: str | None = None,
) -> RunConfig:
    """Load the settings of one entry point.

    Args:
        entry: ``collect_demos``, ``train_sft``, ``train_rl``, ``evaluate`` or ``report``.
        overrides: ``key=value`` and ``group=choice``.
        config_dir: a directory of one's own, searched before configs/.
        config_name: a file to use instead of the entry's own.

    Raises:
        ConfigError: with every problem found.
    """
    directory = Path(config_dir) if config_dir is not None else None
    return from_tree(compose_tree(entry, overrides, directory, config_name), entry)


def load_file(path: str | Path, entry: str = "train_rl") -> RunConfig:
    """Load the config.yaml of a run.

    Raises:
        ConfigError: with every problem found.
    """
    return from_tree(read_tree(Path(path)), entry)


def from_tree(tree: Mapping[str, Any], entry: str = "train_rl") -> RunConfig:
    """Type, complete and check a resolved tree of settings. Nothing changes them afterwards.

    Raises:
        ConfigError: with every problem found.
    """
    problems: list[str] = []
    cfg = build_section(RunConfig, tree, "", problems)
    if problems or (problems := policy_options(cfg)):
        raise ConfigError(problems)
    _complete(cfg, entry)
    problems = cross_checks(cfg)
    if problems:
        raise ConfigError(problems)
    return cfg


def dump(cfg: RunConfig) -> str:
    """The settings as YAML; :func:`load_file` reads back the same settings."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(asdict(cfg)))


def _complete(cfg: RunConfig, entry: str) -> None:
    """Apply the settings that win over others of the same name, and give every camera its size."""
    wins = cfg.model.model_overrides
    cfg.act_steps = cfg.act_steps if wins.act_steps is None else wins.act_steps
    cfg.n_action_steps = cfg.n_action_steps if wins.n_action_steps is None else wins.n_action_steps
    if wins.num_steps is not None:
        cfg.num_steps = wins.num_steps
        if entry == "evaluate":
            cfg.num_steps_eval = wins.num_steps
    side = plugins.load("policies", cfg.model.kind, "model.kind").image_size(cfg.model)
    for camera in cfg.env.cameras:  # without a size: rendered at the model's, so that nothing is resized later
        height, width = round(side / max(1.0, camera.aspect)), round(side * min(1.0, camera.aspect))
        camera.height, camera.width = camera.height or height, camera.width or width
