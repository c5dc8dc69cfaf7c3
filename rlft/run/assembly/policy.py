"""The policy and its heads from settings."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rlft.config.schema import RunConfig
from rlft.errors import ConfigError
from rlft.placement import Placement
from rlft.policy.pi0.sizes import stats_method
from rlft.types import EnvSpec

if TYPE_CHECKING:
    from rlft.data.dataset import DemoSet
    from rlft.data.normalize import NormStats
    from rlft.policy.pi0.policy import Pi0Policy

log = logging.getLogger(__name__)


def build_policy(cfg: RunConfig, spec: EnvSpec, placement: Placement, *, other_task: bool = False) -> Pi0Policy:
    """The policy: from ``model.path`` by a strict load, or fresh with random weights.

    Args:
        cfg: settings.
        spec: the environment that it will act in.
        placement: where its weights go.
        other_task: see :func:`check_stats`.

    Raises:
        ConfigError: the checkpoint does not fit the settings or the environment.
    """
    policy = _policy(cfg, spec, placement, other_task=other_task)
    policy.prefix_dtype = None if cfg.buffer.prefix_dtype == "auto" else getattr(torch, cfg.buffer.prefix_dtype)
    if cfg.model.compile:
        policy.compile_denoise_step()
    return policy


def _policy(cfg: RunConfig, spec: EnvSpec, placement: Placement, *, other_task: bool) -> Pi0Policy:
    from rlft.policy.pi0.weights import load_pretrained

    if cfg.model.path is None:
        log.warning(
            "model.path=null: the policy starts from random weights and will hardly ever succeed; "
            "run scripts/train_sft.py first and pass model.path=<run>/sft/checkpoints/last/pretrained_model"
        )
        return fresh_policy(cfg, initial_stats(cfg, spec), placement.policy)
    policy = load_pretrained(
        Path(cfg.model.path),
        device=placement.policy,
        dtype=cfg.model.dtype,
        stats=None if cfg.dataset_stats is None else initial_stats(cfg, spec, other_task=other_task),
        tokenizer_path=cfg.model.tokenizer_path,
        train_vlm=cfg.model.train_vlm,
        recompute=cfg.model.gradient_checkpointing,
    )
    check_horizon(cfg, policy.horizon)
    check_stats(cfg, policy.stats, spec, other_task=other_task)
    _warn_of_small_pictures(policy, spec)
    return policy


def _warn_of_small_pictures(policy: Pi0Policy, spec: EnvSpec) -> None:
    """The checkpoint brings its own resolution, the settings the cameras': say where the two do not belong together."""
    side = policy.transform.image_size
    for camera in spec.cameras:
        if max(camera.height, camera.width) < side:
            log.warning(
                "camera %s is rendered at %d x %d and enlarged to the checkpoint's %d x %d, which has hardly seen such "
                "pictures; give the run file that it was trained with (--config-name), or model.small.image_size=%d",
                camera.name,
                *(camera.width, camera.height, side, side, side),
            )


def check_horizon(cfg: RunConfig, horizon: int) -> None:
    """Refuse a checkpoint that predicts another number of steps than the settings say.

    Raises:
        ConfigError: with both.
    """
    if cfg.n_action_steps != horizon:
        raise ConfigError(
            f"n_action_steps={cfg.n_action_steps}, but the checkpoint {cfg.model.path} predicts H={horizon} "
            f"steps; pass n_action_steps={horizon}"
        )


def check_method(cfg: RunConfig, stats: NormStats) -> None:
    """Refuse statistics of another kind than ``dataset.stats_method``, where that is given.

    Raises:
        ConfigError: with both.
    """
    wanted = cfg.dataset.stats_method
    if wanted is not None and stats.method != wanted and stats.method != "bounds":
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

    if cfg.dataset_stats is None:
        return NormStats.from_demos(demos, method=cfg.dataset.stats_method or stats_method(cfg.model.kind))
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


def fresh_policy(cfg: RunConfig, stats: NormStats, device: torch.device) -> Pi0Policy:
    """A policy for new data: the weights of ``model.path`` (a pretrained base, lerobot's layout), or random ones."""
    from rlft.policy.pi0.factory import build_policy as make_policy
    from rlft.policy.pi0.weights import WEIGHTS

    return make_policy(
        cfg.model.kind,
        stats,
        horizon=cfg.n_action_steps,
        device=device,
        small=cfg.model.small,
        dtype=cfg.model.dtype,
        tokenizer_path=cfg.model.tokenizer_path,
        train_vlm=cfg.model.train_vlm,
        recompute=cfg.model.gradient_checkpointing,
        num_steps=cfg.num_steps_eval,
        seed=cfg.seed,
        weights=None if cfg.model.path is None else Path(cfg.model.path) / WEIGHTS,
    )
