"""The policy and its heads from settings, and what can be known of it before a simulator starts."""

import logging
from dataclasses import replace
from pathlib import Path

import torch

from rlft import plugins
from rlft.config.schema import RunConfig
from rlft.data.dataset import DemoSet
from rlft.data.normalize import DEMO_FACTS, NormStats
from rlft.errors import ConfigError, command, require_extra
from rlft.placement import Placement
from rlft.policy import pretrained
from rlft.policy.base import FlowPolicy
from rlft.run.assembly.envs import check_task
from rlft.types import EnvSpec

log = logging.getLogger(__name__)


def preflight(cfg: RunConfig) -> None:
    """Check objective, video encoder, checkpoint, statistics and task against the settings, in seconds.

    Raises:
        RlftError: what does not fit, or is not installed.
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
    facts = None if cfg.model.path is None else pretrained.inspect_pretrained(cfg.model.path, cfg.model)
    if facts is not None and facts["horizon"] != cfg.n_action_steps:
        raise ConfigError(
            f"n_action_steps={cfg.n_action_steps}, but the checkpoint {cfg.model.path} predicts H={facts['horizon']} "
            f"steps; pass n_action_steps={facts['horizon']}"
        )
    if cfg.dataset_stats is not None:
        stats = NormStats.load(cfg.dataset_stats)
    elif facts is not None:
        stats = NormStats.from_dict(facts["stats"], source=f"{cfg.model.path}/{pretrained.POLICY}")
    else:
        return  # an untrained policy: the environment's bounds
    check_method(cfg, stats)
    stats.check_origin(
        env_id=stats.env_id if other_task else cfg.env.id,
        control_mode=cfg.env.control_mode,
        cameras=[camera.name for camera in cfg.env.cameras],
        state_terms=cfg.env.state_terms,
        allow_mismatch=cfg.allow_stats_mismatch,
    )


def build_policy(
    cfg: RunConfig, spec: EnvSpec, placement: Placement, *, other_task: bool = False, verified: bool = False
) -> FlowPolicy:
    """The policy for an environment: from ``model.path`` by a strict load, or fresh with random weights.

    For ``other_task`` see :func:`check_stats`, for ``verified`` :func:`rlft.policy.pretrained.load_pretrained`.

    Raises:
        ConfigError: the checkpoint does not fit the settings or the environment.
    """
    stats = None if cfg.dataset_stats is None else NormStats.load(Path(cfg.dataset_stats))
    if stats is not None:
        check_stats(cfg, stats, spec, other_task=other_task)
    if cfg.model.path is None:
        log.warning(
            "model.path=null: the policy starts from random weights and will hardly ever succeed; "
            "run %s first and pass model.path=<run>/sft/checkpoints/last/pretrained_model",
            command("train-sft"),
        )
        policy = fresh_policy(cfg, stats or NormStats.from_spec(spec), placement.policy)
    else:
        device, path = placement.policy, cfg.model.path
        policy = pretrained.load_pretrained(path, device=device, model=cfg.model, stats=stats, verified=verified)
        check_stats(cfg, policy.stats, spec, other_task=other_task)
        _warn_of_small_images(policy, spec)
    policy.prefix_dtype = None if cfg.buffer.prefix_dtype == "auto" else getattr(torch, cfg.buffer.prefix_dtype)
    if cfg.model.compile:
        policy.compile_denoise_step()
    return policy


def fresh_policy(cfg: RunConfig, stats: NormStats, device: torch.device) -> FlowPolicy:
    """A policy for new data: the weights of ``model.path`` (a pretrained base), or random ones."""
    return pretrained.build_policy(
        cfg.model,
        stats,
        horizon=cfg.n_action_steps,
        device=device,
        num_steps=cfg.num_steps_eval,
        seed=cfg.seed,
        weights=None if cfg.model.path is None else Path(cfg.model.path),
    )


def _warn_of_small_images(policy: FlowPolicy, spec: EnvSpec) -> None:
    side = policy.image_size  # the checkpoint's own; the cameras' is of the settings
    for camera in spec.cameras:
        if max(camera.height, camera.width) < side:
            log.warning(
                "camera %s is rendered at %d x %d and enlarged to the checkpoint's %d x %d, which has hardly seen such "
                "images; give the run file that it was trained with (--config-name), or a size in env.cameras",
                camera.name,
                *(camera.width, camera.height, side, side),
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
    """Refuse statistics that are not of the environment's cameras, state and actions; errors name the remedy.

    With ``other_task`` the task may be another, as the members of a suite are on purpose; nothing else may.
    """
    known = replace(spec, env_id=stats.env_id) if other_task else spec
    stats.check(known, state_terms=cfg.env.state_terms, allow_mismatch=cfg.allow_stats_mismatch)


def demo_stats(cfg: RunConfig, demos: DemoSet) -> NormStats:
    """Statistics for a policy that is to learn from demonstrations: the named file, or computed of them.

    Raises:
        StatsError: a dimension that hardly moves, or a file of another dataset.
    """
    if cfg.dataset_stats is None:
        method = cfg.dataset.stats_method or pretrained.family_of(cfg.model.kind).stats_method
        return NormStats.from_demos(demos, method=method)
    stats = NormStats.load(Path(cfg.dataset_stats))
    check_method(cfg, stats)
    facts = {name: getattr(demos.meta, name) for name in DEMO_FACTS}
    widths = {"state_dim": demos.state.shape[1], "act_dim": demos.action.shape[1]}
    stats.check_origin(**facts, **widths, allow_mismatch=cfg.allow_stats_mismatch)
    return stats
