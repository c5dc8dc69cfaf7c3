"""A toy environment and a policy that reads its state, assembled as the product assembles them."""

from __future__ import annotations

import torch
from helpers.toy_policies import StatePolicy

from rlft.placement import Placement
from rlft.policy.actor_critic import ActorCritic
from rlft.policy.critic import Critic
from rlft.policy.denoise import make_schedule
from rlft.policy.noise import NoiseHead
from rlft.rollout.sampler import RolloutSampler
from rlft.types import EnvSettings, RewardSettings
from rlft_envs.make import make_vec_env

CPU = torch.device("cpu")
PLACEMENT = Placement(CPU, CPU, CPU)
ACT_STEPS = 2


def toy_settings(num_envs=4, *, limit=6, **changes):
    defaults = {
        "simulator": "toy",
        "env_id": "ToyReach-v0",
        "num_envs": num_envs,
        "max_episode_steps": limit,
        "control_mode": "pd_ee_delta_pos",
        "state_terms": ("tcp_pos",),
        "reward": RewardSettings(),
    }
    return EnvSettings(**(defaults | changes))


def toy_env(num_envs=4, *, limit=6, **changes):
    return make_vec_env(toy_settings(num_envs, limit=limit, **changes))


def toy_model(method="flow_noise", seed=0, *, privileged=False):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = StatePolicy(horizon=3, width=4)
        noise = NoiseHead(policy.feature_dim, policy.action_width, 0.3, 0.6, learned=True)
        critic = Critic(0, toy_env(1, privileged=True).spec.privileged_dim, [8]) if privileged else Critic(8, 0, [8])
    return ActorCritic(policy, noise, critic, make_schedule(method, 3, 0.5), ACT_STEPS, [0, 1])


def toy_sampler(*envs, model, seed=0, num_decisions=5, reset=True, placement=PLACEMENT, **changes):
    return RolloutSampler(
        envs, model, placement, seed=seed, num_decisions=num_decisions, store_prefix=True, reset_each_rollout=reset,
        **changes,
    )  # fmt: skip
