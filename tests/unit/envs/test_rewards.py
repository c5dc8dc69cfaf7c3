import numpy as np
import pytest

from rlft.types import RewardSettings
from rlft_envs.rewards import step_reward


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
