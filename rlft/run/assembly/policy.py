"""The policy and its heads from settings, and what can be known of it before a simulator starts."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rlft import plugins
from rlft.config.schema import RunConfig
from rlft.errors import ConfigError, require_extra
from rlft.placement import Placement
from rlft.run.assembly.envs import check_task
from rlft.types import EnvSpec

if TYPE_CHECKING:
    from rlft.data.dataset import DemoSet
    from rlft.data.normalize import NormStats
    from rlft.policy.base import FlowPolicy

log = logging.getLogger(__name__)


def preflight(cfg: RunConfig) -> None:
    """Check objective, checkpoint, statistics and task against the settings, in seconds.

    Raises:
        RlftError: videos are asked for, and what encodes them is not installed.
        ConfigError: the objective cannot do what the settings say; errors of the two checks that it calls.
    """
    if problems := plugins.load("objectives", cfg.train.objective, "train.objective").problems(cfg):
        raise ConfigError(problems)
    if cfg.eval.num_videos:
        require_extra("report", "av")
    check_checkpoint(cfg)
    check_task(cfg)


def check_checkpoint(cfg: RunConfig, *, other_task: bool = False) -> None:
    """Check the checkpoint's files, horizon and statistics without reading its weights.

    Raises:
        WeightsError: ``model.path`` is no checkpoint, or a file of it is missing, damaged, or does not fit.
        StatsError: its statistics, or those of ``dataset_stats``, are broken or of other cameras, state or actions.
        ConfigError: it has another horizon, or statistics of another method.
    """
    from rlft.data.normalize import NormStats
    from rlft.policy.pretrained import POLICY, inspect_pretrained

    facts = None if cfg.model.path is None else inspect_pretrained(cfg.model.path, cfg.model)
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
    from rlft.policy.pretrained import family_of

    if cfg.model.path is not None:
        family_of(cfg.model.kind).check(Path(cfg.model.path), None, cfg.model)


def build_policy(
    cfg: RunConfig, spec: EnvSpec, placement: Placement, *, other_task: bool = False, verified: bool = False
) -> FlowPolicy:
    """The policy for an environment: from ``model.path`` by a strict load, or fresh with random weights.

    Args:
        cfg: settings.
        spec: the environment that it will act in.
        placement: where its weights go.
        other_task: see :func:`check_stats`.
        verified: see :func:`rlft.policy.pretrained.load_pretrained`.

    Raises:
        ConfigError: the checkpoint does not fit the settings or the environment.
    """
    from rlft.policy.pretrained import load_pretrained

    if cfg.model.path is None:
        log.warning(
            "model.path=null: the policy starts from random weights and will hardly ever succeed; "
            "run scripts/train_sft.py first and pass model.path=<run>/sft/checkpoints/last/pretrained_model"
        )
        policy = fresh_policy(cfg, initial_stats(cfg, spec), placement.policy)
    else:
        stats = None if cfg.dataset_stats is None else initial_stats(cfg, spec, other_task=other_task)
        policy = load_pretrained(
            cfg.model.path, device=placement.policy, model=cfg.model, stats=stats, verified=verified
        )
        check_horizon(cfg, policy.horizon)
        check_stats(cfg, policy.stats, spec, other_task=other_task)
        _warn_of_small_images(policy, spec)
    policy.prefix_dtype = None if cfg.buffer.prefix_dtype == "auto" else getattr(torch, cfg.buffer.prefix_dtype)
    if cfg.model.compile:
        policy.compile_denoise_step()
    return policy


def fresh_policy(cfg: RunConfig, stats: NormStats, device: torch.device) -> FlowPolicy:
    """A policy for new data: the weights of ``model.path`` (a pretrained base), or random ones."""
    from rlft.policy import pretrained

    return pretrained.build_policy(
        cfg.model,
        stats,
        horizon=cfg.n_action_steps,
        device=device,
        num_steps=cfg.num_steps_eval,
        seed=cfg.seed,
        weights=None if cfg.model.path is None else Path(cfg.model.path),
    )


def exact_products(cfg: RunConfig) -> bool:
    """Whether every product is rounded to float32, so that batches of different shapes agree to rounding."""
    return cfg.model.dtype == "float32" and cfg.model.matmul == "highest"


def _warn_of_small_images(policy: FlowPolicy, spec: EnvSpec) -> None:
    """The checkpoint brings its own resolution, the settings the cameras': say where the two do not belong together."""
    side = policy.image_size
    for camera in spec.cameras:
        if max(camera.height, camera.width) < side:
            log.warning(
                "camera %s is rendered at %d x %d and enlarged to the checkpoint's %d x %d, which has hardly seen such "
                "images; give the run file that it was trained with (--config-name), or a size in env.cameras",
                camera.name,
                *(camera.width, camera.height, side, side),
            )


def check_horizon(cfg: RunConfig, horizon: int) -> None:
    """Refuse, with both numbers, a checkpoint that predicts another number of steps than the settings say."""
    if cfg.n_action_steps != horizon:
        raise ConfigError(
            f"n_action_steps={cfg.n_action_steps}, but the checkpoint {cfg.model.path} predicts H={horizon} "
            f"steps; pass n_action_steps={horizon}"
        )


def check_method(cfg: RunConfig, stats: NormStats) -> None:
    """Refuse statistics of another kind than ``dataset.stats_method``, where that is given."""
    wanted = cfg.dataset.stats_method
    if wanted is not None and stats.method not in (wanted, "bounds"):
        raise ConfigError(
            f"dataset.stats_method = {wanted}, but the statistics in use are {stats.method}, and the policy was made "
            "with them: set dataset.stats_method=null, or run train_sft anew"
        )


def check_stats(cfg: RunConfig, stats: NormStats, spec: EnvSpec, *, other_task: bool = False) -> None:
    """Refuse statistics (a policy's, or a file's) that are not of the environment's cameras, state and actions.

    Args:
        cfg: settings.
        stats: what the policy was made with.
        spec: the environment.
        other_task: the task may be another, as the members of a suite are on purpose; nothing else may.

    Raises:
        StatsError: names what differs and the remedy.
        ConfigError: see :func:`check_method`.
    """
    check_method(cfg, stats)
    known = replace(spec, env_id=stats.env_id) if other_task else spec
    stats.check(known, state_terms=cfg.env.state_terms, allow_mismatch=cfg.allow_stats_mismatch)


def initial_stats(cfg: RunConfig, spec: EnvSpec, *, other_task: bool = False) -> NormStats:
    """Statistics of a policy without a checkpoint: the named file, or the environment's bounds."""
    from rlft.data.normalize import NormStats

    if cfg.dataset_stats is None:
        return NormStats.from_spec(spec)
    stats = NormStats.load(Path(cfg.dataset_stats))
    check_stats(cfg, stats, spec, other_task=other_task)
    return stats


def demo_stats(cfg: RunConfig, demos: DemoSet) -> NormStats:
    """Statistics for a policy that is to learn from demonstrations: the named file, or computed of them.

    Raises:
        StatsError: a dimension that hardly moves, or a file of another dataset.
    """
    from rlft.data.normalize import NormStats
    from rlft.policy.pretrained import family_of

    if cfg.dataset_stats is None:
        method = cfg.dataset.stats_method or family_of(cfg.model.kind).stats_method
        return NormStats.from_demos(demos, method=method)
    stats, meta = NormStats.load(Path(cfg.dataset_stats)), demos.meta
    check_method(cfg, stats)
    stats.check_origin(
        meta.env_id,
        meta.control_mode,
        meta.cameras,
        state_terms=meta.state_terms,
        widths=(demos.state.shape[1], demos.action.shape[1]),
        fingerprint=meta.fingerprint,
        allow_mismatch=cfg.allow_stats_mismatch,
    )
    return stats
