"""GRPO and RLOO against brute force, on a bandit with a known optimum, and on episodes that share their start."""

import math

import pytest
import torch
from helpers.learners import CPU, judge, make_actor, one_step, settings
from helpers.toy_policies import NoPrefix
from helpers.toy_world import toy_actor, toy_env, toy_sampler
from objective.test_ppo import ContextualTargetPolicy

from rlft.config.learning import OptimizerConfig
from rlft.config.load import changed, load
from rlft.learn.updater import Updater
from rlft.objective.grpo import GRPO, SAME, group_advantages
from rlft.policy.actor import ChainTrace
from rlft.rollout.buffer import ChunkRows, Rollout

G = 3


def grpo(actor, estimator="grpo", *, size=G, episodes=1, limit=4, **train):
    cfg = settings(objective="grpo", options={"group_size": size, "estimator": estimator}, **train)
    return GRPO(actor, changed(cfg, {"env.max_episode_len": limit, "env.n_steps_rollout": episodes * limit}))


@pytest.mark.parametrize("estimator", ["grpo", "rloo"])
def test_advantages_equal_the_sums_written_out(estimator):
    returns = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0))
    found = group_advantages(returns, estimator)
    for i in range(5):
        for j in range(2):
            group = returns[i, j].tolist()
            for k, own in enumerate(group):
                others = [x for n, x in enumerate(group) if n != k]
                mean = sum(group) / 4
                std = math.sqrt(sum((x - mean) ** 2 for x in group) / 3)
                expected = (own - mean) / std if estimator == "grpo" else own - sum(others) / 3
                assert float(found[i, j, k]) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert group_advantages(torch.full((1, 4), 0.3), estimator).abs().max() < SAME


def random_rollout(T, E, seed):
    """Episodes of at most 4 decisions of one step; some end earlier, and some in a simulator's failure."""
    g, rollout = torch.Generator().manual_seed(seed), Rollout(T, E, CPU, CPU)
    age = torch.zeros(E, dtype=torch.int64)
    for t in range(T):
        age += 1
        ended, broken = torch.rand(E, generator=g) < 0.2, torch.rand(E, generator=g) < 0.04
        truncated = age == 4
        reward = torch.randint(0, 2, (E, 1), generator=g).float().masked_fill(broken[:, None], math.nan)
        chunks = ChunkRows(reward, torch.ones(E, dtype=torch.int64), ended & ~broken, truncated & ~broken, broken)
        rows = torch.zeros(E, 1, 1, 1)
        rollout.add(t, range(E), trace=ChainTrace(torch.zeros(E), torch.zeros(E), rows, rows), chunks=chunks)
        age[ended | truncated | broken] = 0
    return rollout


@pytest.mark.parametrize("estimator", ["grpo", "rloo"])
@pytest.mark.parametrize("seed", range(4))
def test_every_decision_gets_its_episodes_advantage_and_only_whole_groups_that_differ_count(estimator, seed):
    T, E, n = 8, 12, 2
    rollout, chunks = random_rollout(T, E, seed), None
    objective = grpo(make_actor(ContextualTargetPolicy()), estimator, episodes=n)
    signal, chunks = judge(objective, rollout), rollout.chunks
    episodes: dict[tuple[int, int], list[int]] = {}  # (environment, number) -> its decisions
    for e in range(E):
        number = 0
        for t in range(T):
            episodes.setdefault((e, number), []).append(t)
            number += bool(chunks.terminated[t, e] | chunks.truncated[t, e] | chunks.invalid[t, e])
    expected, counts, left_out = torch.zeros(T, E), torch.zeros(T, E, dtype=torch.bool), 0
    for first in range(0, E, G):
        for number in range(n):
            members = [(e, episodes[e, number]) for e in range(first, first + G)]
            broken = any(bool(chunks.invalid[t, e]) for e, rows in members for t in rows)
            returns = [math.nan if broken else float(chunks.rewards[rows, e].sum()) for e, rows in members]
            if broken or max(returns) == min(returns):
                left_out += 1
                continue
            for (e, rows), advantage in zip(members, group_advantages(torch.tensor(returns), estimator)):
                expected[rows, e], counts[rows, e] = advantage, True
    assert torch.equal(rollout.valid, counts)
    assert torch.allclose(signal.rows.advantage, expected, atol=1e-5)
    assert 0 < left_out < n * E // G
    assert signal.scalars["group/dropped"] == pytest.approx(left_out / (n * E // G))
    assert sum(len(batch) for batch in rollout.epoch(5, 2, torch.Generator())) == int(counts.sum())


@pytest.mark.parametrize("estimator", ["grpo", "rloo"])
def test_the_bandit_reaches_its_analytic_optimum_without_a_critic(estimator):
    """As PPO's: reward -|a - c W|^2, at best minus the policy's own variance; members of a group share c."""
    truth, size = torch.tensor([[0.8, -0.5], [0.3, 0.9]]), 8
    with torch.random.fork_rng():
        torch.manual_seed(0)
        actor = make_actor(ContextualTargetPolicy())
    cfg = {"batch_size": 128, "update_epochs": 2, "max_grad_norm": None, "lr_schedule": "linear", "n_train_itr": 40}
    rate = OptimizerConfig(lr=5e-2)
    objective = grpo(actor, estimator, size=size, limit=1, actor_optimizer=rate, target_kl=None, **cfg)
    updater, g = Updater(objective, objective.cfg.train), torch.Generator().manual_seed(0)

    def play(rows, seed):
        context = torch.randn(rows // size, 2, generator=g).repeat_interleave(size, 0)
        return one_step(objective, NoPrefix(context), lambda x: -((x[:, 0] - context @ truth) ** 2).sum(-1), seed)

    for i in range(40):
        rollout = play(512, seed=i)
        judge(objective, rollout)
        updater.update(rollout, i, g)
    assert float(play(20_000, seed=1000).chunks.rewards.mean()) == pytest.approx(-2 * 0.15**2, rel=0.1)
    assert float((actor.policy.weight.detach() - truth).abs().max()) < 0.08
    assert set(updater.optimizers) == set(objective.parameter_groups()) == {"actor"}
    assert set(objective.heads()) == {"noise"}
    assert not any("critic" in name for name in objective.state_dict())


def test_members_of_a_group_start_every_episode_alike_whatever_simulates_them():
    """Two groups of three over two batches of environments; episodes end at different times."""
    objective, starts = grpo(toy_actor(), episodes=2, limit=6), {}
    envs = [toy_env(4, limit=6), toy_env(2, limit=6)]
    for env, first in zip(envs, (0, 4)):

        def reset(ids, seeds, *args, env=env, first=first, original=env.reset):
            obs = original(ids, seeds, *args)
            for row, i in enumerate(ids):
                starts.setdefault(first + i, []).append((seeds[row], obs.state[row].tolist()))
            return obs

        env.reset = reset
    rollout, _ = toy_sampler(*envs, model=objective, num_decisions=6).collect(0)
    for first in (0, 3):
        members = [starts[i] for i in range(first, first + G)]
        assert all(one[:2] == members[0][:2] for one in members)
        assert len({seed for seed, _ in members[0]}) == len(members[0])
    assert starts[0][0] != starts[3][0]
    assert rollout.chunks.final_value is None
    assert set(rollout.trace.tensors()) == {"chain", "stochastic_step", "latent", "action"}


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("env.num_envs=12", r"env.num_envs = 12 is no multiple of train.options.group_size = 8; set env.num_envs=16"),
        ("train.options.group_size=1", "set 2 or more"),
        ("train.options.estimator=mean", "must be grpo or rloo"),
        ("env.n_steps_rollout=30", "no multiple of env.max_episode_len = 20.*set env.n_steps_rollout=40"),
        ("env.reset_at_iteration=false", "members of a group start together"),
        ("critic.inputs=privileged", "critic.inputs: train.objective = grpo has no critic"),
        ("train.gamma=0.9", "train.gamma: train.objective = grpo has no critic and no discount"),
        ("train.n_critic_warmup_itr=3", "train.n_critic_warmup_itr: "),
    ],
)
def test_what_it_cannot_do_or_would_ignore_is_refused(override, problem):
    cfg = load("train_rl", ["task=toy", "algo=grpo", override])
    with pytest.raises(AssertionError, match=problem):
        assert not GRPO.problems(cfg), " ".join(GRPO.problems(cfg))
    assert GRPO.problems(load("train_rl", ["task=toy", "algo=grpo"])) == []
