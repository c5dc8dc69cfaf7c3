"""Rollouts on the toy environment: reproducible, honest at episode ends, independent of their neighbours."""

import numpy as np
import pytest
import torch
from helpers.toy_world import ACT_STEPS, toy_env, toy_model, toy_sampler

from rlft.rollout.sampler import NonFiniteActionError

COLUMNS = ("chain", "log_prob", "value", "rewards", "n_executed", "terminated", "truncated", "final_value")


def collect(*, seed=0, iteration=0, num_envs=4, env=None, **settings):
    env = env or toy_env(num_envs, **settings)
    return toy_sampler(env, toy_model(), seed=seed).collect(iteration)


def test_the_same_seed_gives_the_same_rollout_and_another_does_not():
    (a, _), (b, _), (c, _) = collect(seed=1), collect(seed=1), collect(seed=2)
    for name in COLUMNS:
        assert torch.equal(a.column(name), b.column(name)), name
    assert not torch.equal(a.column("chain"), c.column("chain"))


def test_iterations_differ():
    (a, _), (b, _) = collect(iteration=0), collect(iteration=1)
    assert not torch.equal(a.column("chain"), b.column("chain"))


def test_an_environments_rollout_does_not_depend_on_how_many_stand_beside_it():
    (few, _), (many, _) = collect(num_envs=2), collect(num_envs=5)
    for name in COLUMNS:
        assert torch.allclose(few.column(name).float(), many.column(name)[:, :2].float(), atol=1e-6), name


def test_truncated_chunks_carry_the_value_of_their_true_final_observation():
    env, model = toy_env(3, limit=4), toy_model()
    sampler = toy_sampler(env, model, num_decisions=6)
    seen = {}
    original = sampler._final_values

    def spy(step, iteration, t):
        values = original(step, iteration, t)
        seen[t] = (np.array(step.truncated), np.array(step.terminated), values)
        return values

    sampler._final_values = spy
    buffer, _ = sampler.collect(0)
    truncations = 0
    for t, (truncated, terminated, values) in seen.items():
        last = t == 5
        for e in range(3):
            used = (truncated[e] or last) and not terminated[e]
            assert (float(values[e]) != 0.0) == used
            truncations += bool(truncated[e])
            if truncated[e] and not last:  # the next decision looks at a new episode, with another value
                assert float(values[e]) != float(buffer.column("value")[t + 1, e])
    assert truncations > 0


def test_statistics_count_what_was_executed():
    env = toy_env(4, limit=5)  # odd limit: the last chunk of an episode executes one step of two
    buffer, stats = toy_sampler(env, toy_model(), num_decisions=9).collect(0)
    n = buffer.column("n_executed")
    assert stats.env_steps == int(n.sum())
    assert int(n.min()) == 1
    assert int(n.max()) == ACT_STEPS
    assert sum(stats.episode_lengths) <= stats.env_steps
    assert max(stats.episode_lengths) <= 5
    assert stats.scalars()["rollout/episodes"] == len(stats.episode_returns)


def test_episodes_run_on_where_iterations_do_not_reset_them():
    env = toy_env(2, limit=7, episode_ends_on_success=False)
    sampler = toy_sampler(env, toy_model(), num_decisions=3, reset=False)
    (_, first), (_, second) = sampler.collect(0), sampler.collect(1)
    assert first.episode_lengths == []
    assert second.episode_lengths == [7, 7]


def test_a_diverged_policy_is_stopped_before_the_simulator():
    env, model = toy_env(2), toy_model()
    with torch.no_grad():
        model.policy.w3.fill_(float("nan"))
    with pytest.raises(NonFiniteActionError, match=r"\[0, 1\]"):
        toy_sampler(env, model).collect(0)


def test_a_failed_simulator_is_discarded_and_the_rollout_goes_on(tmp_path):
    from rlft.seeding import seed_for

    fault = {"kind": "nan_reward", "seed": seed_for(0, "rollout-episode", 0, 1, 0), "at_step": 3}
    buffer, stats = collect(make_kwargs={"fault": fault})
    invalid = buffer.column("invalid")
    assert invalid[1, 1]
    assert int(invalid.sum()) == 1
    assert stats.invalid == 1
    assert torch.isfinite(buffer.column("rewards")[~invalid]).all()
