"""An objective from settings."""

from __future__ import annotations

import torch

from rlft import plugins
from rlft.config.schema import RunConfig
from rlft.objective.base import Objective
from rlft.policy.actor import Actor
from rlft.policy.base import FlowPolicy
from rlft.policy.denoise import make_schedule
from rlft.policy.noise import NoiseHead
from rlft.seeding import seed_for


def build_objective(cfg: RunConfig, policy: FlowPolicy, privileged_dim: int) -> Objective:
    """The objective with the policy and its exploration noise; the heads' first weights are named by the seed.

    Args:
        cfg: settings.
        policy: the policy; the heads go where its weights are, which may be the meta device.
        privileged_dim: P of the simulator state that observations bring, or 0.
    """
    x, frozen = cfg.exploration, set(policy.stats.frozen_action_dims)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(cfg.seed, "heads"))
        actor = Actor(
            policy,
            NoiseHead(policy.feature_dim, policy.action_width, x.std_min, x.std_max, learned=x.learn_std),
            make_schedule(x.method, cfg.num_steps, x.noise_level).to(policy.device),
            cfg.act_steps,
            explored_dims=[dim for i, dim in enumerate(policy.real_dims) if i not in frozen],
            frozen_dims=[policy.real_dims[i] for i in sorted(frozen)],
            density=x.density,
        )
        objective: type[Objective] = plugins.load("objectives", cfg.train.objective, "train.objective")
        return objective(actor, cfg, privileged_dim).to(policy.device)
