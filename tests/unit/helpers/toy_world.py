"""A toy environment, a policy that reads its state and evaluations of them, assembled as the product assembles them."""

import torch
from helpers.learners import make_actor, settings
from helpers.toy_policies import StatePolicy

from rlft.evaluate.loop import Evaluator
from rlft.evaluate.protocol import EvalProtocol, choose_ids
from rlft.objective.ppo import PPO
from rlft.placement import Placement
from rlft.rollout.sampler import RolloutSampler
from rlft.types import EnvSettings, RewardSettings
from rlft_envs.simulator import make_vec_env
from rlft_envs.task import configuration_space

CPU = torch.device("cpu")
PLACEMENT = Placement(CPU, CPU, CPU)
ACT_STEPS = 2


def toy_settings(num_envs=4, *, limit=6, **changes):
    defaults = {"simulator": "toy", "env_id": "ToyReach-v0", "num_envs": num_envs, "max_episode_steps": limit}
    defaults |= {"control_mode": "pd_ee_delta_pos", "state_terms": ("tcp_pos",), "reward": RewardSettings()}
    return EnvSettings(**(defaults | changes))


def toy_env(num_envs=4, *, limit=6, **changes):
    return make_vec_env(toy_settings(num_envs, limit=limit, **changes))


def toy_actor(method="flow_noise"):
    policy = StatePolicy(horizon=3, width=4)
    return make_actor(policy, method, 3, std=(0.3, 0.6), learned=True, act_steps=ACT_STEPS, explored=[0, 1])


def toy_model(method="flow_noise", seed=0, cfg=None):
    cfg = cfg or settings()
    privileged = 0 if cfg.critic.inputs == "features" else toy_env(1, privileged=True).spec.privileged_dim
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PPO(toy_actor(method), cfg, privileged)


def toy_sampler(*envs, model, seed=0, num_decisions=5, reset=True, placement=PLACEMENT, **changes):
    return RolloutSampler(
        envs, model, placement, seed=seed, num_decisions=num_decisions, store_prefix=True, reset_each_rollout=reset,
        **changes,
    )  # fmt: skip


def toy_protocol(settings: EnvSettings, *, episodes=12, seed=7, select="seeds") -> EvalProtocol:
    ids = choose_ids(select, episodes, seed, configuration_space(settings))
    return EvalProtocol.of(
        settings, select=select, episodes=episodes if ids is None else len(ids), seed=seed, configuration_ids=ids,
        num_steps=3, act_steps=2,
    )  # fmt: skip


def toy_evaluator(*, num_envs=4, limit=9, episodes=12, seed=7, select="seeds", **env) -> Evaluator:
    settings = toy_settings(num_envs, limit=limit, **env)
    protocol = toy_protocol(settings, episodes=episodes, seed=seed, select=select)
    return Evaluator(toy_env(num_envs, limit=limit, **env), PLACEMENT, protocol, configuration_space(settings))
