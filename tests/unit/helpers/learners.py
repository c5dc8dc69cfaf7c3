"""Objectives on small policies, and rollouts that are made by hand."""

import torch

from rlft.config.learning import CriticConfig, GuardConfig, TrainConfig
from rlft.config.load import changed
from rlft.config.schema import RunConfig
from rlft.objective.ppo import PPO
from rlft.policy.actor import Actor, Draws
from rlft.policy.denoise import make_schedule
from rlft.policy.heads import NoiseHead
from rlft.rollout.buffer import ChunkRows, Rollout

CPU = torch.device("cpu")


def make_actor(
    policy, method="flow_noise", steps=4, *, std=(0.15, 0.150015), learned=False, level=0.5, act_steps=None,
    explored=None, frozen=(), density="masked",
):  # fmt: skip
    noise = NoiseHead(policy.feature_dim, policy.action_width, *std, learned=learned)
    dims = range(policy.action_width) if explored is None else explored
    schedule = make_schedule(method, steps, level)
    return Actor(policy, noise, schedule, act_steps or policy.horizon, dims, frozen, density=density)


def settings(*, exact=True, guard=None, logprob="sum", value_at="first", inputs="features", **train):
    critic = CriticConfig(hidden_dims=[8], value_at=value_at, inputs=inputs)
    cfg = RunConfig(train=TrainConfig(**train), guard=guard or GuardConfig(), critic=critic)
    return changed(cfg, {"exploration.logprob": logprob, "model.matmul": "highest" if exact else "high"})


def make_ppo(policy, cfg=None, **actor):
    return PPO(make_actor(policy, **actor), cfg or settings())


def random_draws(actor, n, seed):
    steps, generator = actor.schedule.num_steps, torch.Generator().manual_seed(seed)
    noise = torch.randn(n, steps + 1, actor.policy.horizon, actor.policy.action_width, generator=generator)
    return Draws(noise, torch.randint(0, steps, (n,), generator=generator))


def decide(objective, rollout, t, prefix, draws, rewards, *, ends, kept=None):
    """Decision t of every environment, executed whole; rewards ``[n, A]``, or a function of the chunks."""
    sampled, n = objective.sample(prefix, draws, None), len(draws)
    rewards = rewards(sampled.chunk) if callable(rewards) else rewards
    flags, final = torch.zeros(3, n, dtype=torch.bool), torch.zeros(n) if objective.bootstraps else None
    flags[0] = ends
    chunks = ChunkRows(rewards, torch.full((n,), objective.actor.act_steps), *flags, final)
    rollout.add(t, range(n), trace=sampled.trace, chunks=chunks, **(kept or {"prefix": prefix}))
    return sampled


def first_reward(objective, values):
    """Rewards ``[n, A]`` with everything at the first step."""
    return torch.nn.functional.pad(values[:, None], (0, objective.actor.act_steps - 1))


def judge(objective, rollout):
    signal = objective.signal(rollout)
    rollout.assign(signal.rows, signal.dropped)
    return signal


def one_step(objective, prefix, reward, seed):
    """A rollout of one decision per row that ends at once, T = 1; ``reward`` of the chunks, ``[n]``."""
    n = len(prefix)
    rollout = Rollout(1, n, CPU, CPU)
    draws = random_draws(objective.actor, n, seed)
    decide(objective, rollout, 0, prefix, draws, lambda x: first_reward(objective, reward(x)), ends=True)
    return rollout
