"""Rewards per step, and the dense one once per chunk: the same sums, and refused where sums would change."""

from dataclasses import replace

import numpy as np
import pytest

from rlft.types import EnvSettings, RewardSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.rewards import step_reward
from rlft_envs.simulator import make_vec_env
from rlft_envs.toy import ToyEnv

SETTINGS = EnvSettings("toy", "ToyReach-v0", 3, 23, "pd_ee_delta_pos", reward=RewardSettings(scale=3.0))
A = 5


def play(settings, monkeypatch, towards_goal=True):
    """Chunks until every episode has ended: the outcomes per chunk, and how often the dense reward was computed."""
    asked = []
    real = ToyEnv._dense_reward
    monkeypatch.setattr(ToyEnv, "_dense_reward", lambda env: asked.append(env) or real(env))
    env = make_vec_env(settings)
    env.reset(range(3), [1, 2, 3])
    asked.clear()
    chunks, rng = [], np.random.default_rng(0)
    while not (chunks and chunks[-1].ended.all()):
        away = np.stack([toy._goal - toy._pos for toy in env._links[0].envs])[:, None]
        actions = np.clip(3 * away, -1, 1) if towards_goal else rng.uniform(-1, 1, (3, 1, 2))
        chunks.append(env.step_chunk(0.6 * np.repeat(actions, A, 1)))
    env.close()
    return chunks, len(asked)


@pytest.mark.parametrize("towards_goal", [True, False])
@pytest.mark.parametrize("ends", [True, False])
def test_a_chunks_sum_is_that_of_its_steps(monkeypatch, towards_goal, ends):
    settings = replace(SETTINGS, episode_ends_on_success=ends)
    each, asked_each = play(settings, monkeypatch, towards_goal)
    once, asked_once = play(replace(settings, reward_per_chunk=True), monkeypatch, towards_goal)
    assert len(each) == len(once)
    for a, b in zip(each, once):
        np.testing.assert_allclose(a.rewards.sum(1), b.rewards.sum(1), rtol=0, atol=1e-6)
        for name in ("n_executed", "terminated", "truncated", "success", "success_now"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert any(chunk.success.any() for chunk in each) is towards_goal
    assert asked_each == sum(int(chunk.n_executed.sum()) for chunk in each)
    assert asked_once == sum(int((chunk.n_executed > 0).sum()) for chunk in once)
    assert any(chunk.rewards[:, -1].any() for chunk in once)  # the differences stand at the last executed step


@pytest.mark.parametrize("mode", ["dense", "sparse"])
def test_other_modes_refuse(mode):
    with pytest.raises(EnvSetupError, match=f"reward_per_chunk goes with .*not with '{mode}'"):
        ToyEnv(replace(SETTINGS, reward=RewardSettings(mode), reward_per_chunk=True))


def test_dense_differences_telescope_to_the_gain_and_the_bonus_comes_once():
    settings = RewardSettings("dense_difference", scale=2.0, success_bonus=5.0)
    dense = [0.1, 0.4, 0.3, 0.9, 1.0]
    first = [0.0, 0.0, 1.0, 0.0]  # the task succeeds at the third step, and again at the fourth
    rewards = [step_reward(settings, dense[j + 1], dense[j], first[j]) for j in range(4)]
    np.testing.assert_allclose(rewards, [0.6, -0.2, 1.2 + 5.0, 0.2])
    assert sum(rewards) == pytest.approx(2.0 * (1.0 - 0.1) + 5.0)


def test_dense_and_sparse():
    first = np.array([0.0, 1.0])
    dense, before = np.array([0.5, 0.7]), np.array([0.1, 0.2])
    np.testing.assert_allclose(step_reward(RewardSettings("dense", 3.0, 1.0), dense, before, first), [1.5, 3.1])
    np.testing.assert_allclose(step_reward(RewardSettings("sparse", 3.0, 4.0), dense, before, first), [0.0, 4.0])


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="allowed: dense_difference, dense, sparse"):
        step_reward(RewardSettings("shaped"), 0.0, 0.0, 0.0)
