"""What can be known to be wrong before a simulator starts or a dataset is read: in seconds, not minutes."""

from __future__ import annotations

from pathlib import Path

from rlft import plugins
from rlft.config.schema import RunConfig
from rlft.errors import ConfigError
from rlft.run.assembly.envs import check_task
from rlft.run.assembly.policy import check_horizon, check_method


def preflight(cfg: RunConfig) -> None:
    """Check the objective, the policy's checkpoint and statistics, then the task, against the settings.

    Raises:
        ConfigError: no such objective, or it cannot do what the settings say.
        WeightsError: see :func:`check_checkpoint`; StatsError and ConfigError likewise.
        EnvSetupError: see :func:`rlft.run.assembly.envs.check_task`.
    """
    problems = plugins.load("objectives", cfg.train.objective, "train.objective").problems(cfg)
    if problems:
        raise ConfigError(problems)
    check_checkpoint(cfg)
    check_task(cfg)


def check_checkpoint(cfg: RunConfig, *, other_task: bool = False) -> None:
    """Check the checkpoint's files, horizon and statistics without reading its weights.

    Args:
        cfg: settings.
        other_task: see :func:`rlft.run.assembly.policy.check_stats`.

    Raises:
        WeightsError: ``model.path`` is no checkpoint, or a file of it is missing, damaged, or does not fit.
        StatsError: its statistics, or those of ``dataset_stats``, are broken or of other cameras, state or actions.
        ConfigError: it has another horizon, or statistics of another method.
    """
    from rlft.data.normalize import NormStats
    from rlft.policy.pi0.weights import POLICY, inspect_pretrained

    facts = None if cfg.model.path is None else inspect_pretrained(cfg.model.path)
    if facts is not None:
        check_horizon(cfg, facts["horizon"])
    if cfg.dataset_stats is not None:
        stats = NormStats.load(cfg.dataset_stats)
    elif facts is not None:
        stats = NormStats.from_dict(facts["stats"], source=f"{cfg.model.path}/{POLICY}")
    else:
        return  # an untrained policy: the environment's bounds
    check_method(cfg, stats)
    stats.check_origin(
        stats.env_id if other_task else cfg.env.id,
        cfg.env.control_mode,
        [camera.name for camera in cfg.env.cameras],
        state_terms=cfg.env.state_terms,
        allow_mismatch=cfg.allow_stats_mismatch,
    )


def check_base(cfg: RunConfig) -> None:
    """Check the keys and shapes of the weights that train_sft starts from, without reading them.

    Raises:
        WeightsError: the file is missing, damaged, or of another architecture.
    """
    from rlft.policy.pi0.factory import core_shapes
    from rlft.policy.pi0.weights import WEIGHTS
    from rlft.policy.strict import check_weights

    if cfg.model.path is not None:
        check_weights(Path(cfg.model.path) / WEIGHTS, core_shapes(cfg.model.kind, cfg.model.small))
