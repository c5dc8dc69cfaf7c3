"""A run's parts from settings, as ``train_rl.py`` builds them, for benchmarks of rollouts and whole iterations."""

import logging
from collections.abc import Sequence
from typing import Any

from rlft.config.load import changed, load
from rlft.config.schema import RunConfig
from rlft.data.normalize import NormStats
from rlft.objective.base import Objective, build_objective
from rlft.placement import overlaps
from rlft.rollout.sampler import RolloutSampler
from rlft.run.assembly.envs import policy_threads
from rlft.run.assembly.learner import build_placement
from rlft.run.assembly.policy import fresh_policy
from rlft.types import VecEnv


def settings(overrides: Sequence[str], small: dict[str, int] | None = None) -> RunConfig:
    """The settings of ``train_rl.py`` with overrides; ``small`` are the sizes of the policy."""
    return changed(load("train_rl", ["wandb=null", *overrides]), {"model.small": dict(small or {})})


def make_objective(cfg: RunConfig, envs: Sequence[VecEnv]) -> Objective:
    """The objective around a policy with random weights (their values do not change what they cost)."""
    placement = build_placement(cfg)
    logging.getLogger("rlft.data.normalize").setLevel(logging.ERROR)  # it warns of weights that know no data
    policy = fresh_policy(cfg, NormStats.from_spec(envs[0].spec), placement.policy)
    return build_objective(cfg, policy, envs[0].spec.privileged_dim)


def make_sampler(cfg: RunConfig, envs: Sequence[VecEnv], objective: Objective, **changes: Any) -> RolloutSampler:
    """The rollout of these settings.

    Args:
        cfg: the settings.
        envs: the environments in their groups.
        objective: decides.
        changes: arguments of :class:`RolloutSampler` that differ from what the settings say.
    """
    arguments: dict[str, Any] = {
        "seed": cfg.seed,
        "num_decisions": cfg.env.n_steps_rollout // cfg.act_steps,
        "store_prefix": True,
        "reset_each_rollout": cfg.env.reset_at_iteration,
        "overlap": overlaps(cfg),
        "policy_threads": policy_threads(cfg),
    }
    return RolloutSampler(envs, objective, build_placement(cfg), **(arguments | changes))
