"""Loading settings: files and command line in, one checked :class:`RunConfig` out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from rlft import plugins
from rlft.config.checks import cross_checks, policy_family
from rlft.config.compose import compose_tree
from rlft.config.messages import typed
from rlft.config.schema import RunConfig
from rlft.errors import ConfigError


def load(
    entry: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None, config_name: str | None = None
) -> RunConfig:
    """Load, complete and check the settings of one entry point; nothing changes them afterwards.

    Args:
        entry: ``collect_demos``, ``train_sft``, ``train_rl``, ``evaluate``, ``report`` or ``plan``: a file in configs/.
        overrides: ``key=value`` and ``group=choice``.
        config_dir: a directory of one's own, searched before configs/.
        config_name: a file there or in configs/ to use instead of the entry's own.

    Raises:
        ConfigError: with every problem found.
    """
    directory = Path(config_dir) if config_dir is not None else None
    cfg = typed(RunConfig, compose_tree(entry, overrides, directory, config_name))
    if problems := list(policy_family(cfg)):
        raise ConfigError(problems)
    check_options(cfg)
    cfg = _complete(cfg, entry)
    if problems := cross_checks(cfg):
        raise ConfigError(problems)
    return cfg


def check_options(cfg: RunConfig) -> None:
    """Refuse options that the chosen plug-in does not declare; it is imported only where there are some."""
    problems = []
    for kind, section, name, mapping in (
        ("simulators", "env", cfg.env.simulator, cfg.env.options),
        ("policies", "model", cfg.model.kind, cfg.model.options),
        ("objectives", "train", cfg.train.objective, cfg.train.options),
    ):
        cls = getattr(plugins.load(kind, name), "Options", None) if mapping else None
        try:
            if cls is not None:
                typed(cls, mapping, f"{section}.options")
            elif mapping:
                problems.append(f"{section}.options = {mapping}: {name} declares none; remove them")
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def changed[T](cfg: T, changes: Mapping[str, Any]) -> T:
    """A copy of the settings, or of a section, with some changed by their dotted keys; nothing is checked."""
    for key, value in changes.items():
        name, _, below = key.partition(".")
        inner = changed(vars(cfg)[name], {below: value}) if below else value
        cfg = replace(cfg, **{name: inner})  # type: ignore[type-var]
    return cfg


def dump(cfg: RunConfig) -> str:
    """The settings as YAML, which :func:`load` reads back as its ``config_name``."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(cfg)))


def _complete(cfg: RunConfig, entry: str) -> RunConfig:
    """Apply the settings that win over others of the same name, and give every camera its size."""
    wins = {key: value for key, value in vars(cfg.model.model_overrides).items() if value is not None}
    if entry == "evaluate" and "num_steps" in wins:
        wins["num_steps_eval"] = wins["num_steps"]
    side = plugins.load("policies", cfg.model.kind, "model.kind").image_size(cfg.model)
    cameras = [
        replace(  # without a size: rendered at the model's, so that nothing is resized later
            camera,
            height=camera.height or round(side / max(1.0, camera.aspect)),
            width=camera.width or round(side * min(1.0, camera.aspect)),
        )
        for camera in cfg.env.cameras
    ]
    return replace(cfg, env=replace(cfg.env, cameras=cameras), **wins)
