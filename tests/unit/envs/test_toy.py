from dataclasses import replace

import numpy as np
import pytest

from rlft.types import CameraSettings, EnvSettings, RewardSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.simulator import build_single_env
from rlft_envs.toy import MAX_STEP, ToyEnv

CAMERA, TERMS = CameraSettings("base_camera", 48, 64), ("tcp_pos", "goal_pos")
SETTINGS = EnvSettings("toy", "ToyReach-v0", 1, 40, "pd_ee_delta_pos", (CAMERA,), TERMS, privileged=True)


def towards(row):
    return np.clip((row.state[2:] - row.state[:2]) / MAX_STEP, -1, 1)


def test_going_to_the_goal_succeeds_and_pays_the_gain_plus_the_bonus():
    env = build_single_env(SETTINGS)
    assert isinstance(env, ToyEnv)
    for seed in range(20):
        env.reset(seed)
        start = env.observe()
        total, result = 0.0, None
        while result is None or not (result.terminated or result.truncated):
            result = env.step(towards(env.observe()))
            total += result.reward
        end = env.observe()
        assert result.success
        assert result.terminated
        gain = np.tanh(np.linalg.norm(start.state[:2] - start.state[2:])) - np.tanh(result.metrics["distance"])
        assert total == pytest.approx(gain + SETTINGS.reward.success_bonus, abs=1e-5)
        assert end.privileged.tolist() == end.state.tolist()


def test_actions_are_displacements_and_are_clipped():
    env = ToyEnv(SETTINGS)
    env.reset(3)
    before = env.observe().state
    env.step(np.array([0.5, -7.0]))
    np.testing.assert_allclose(env.observe().state[:2] - before[:2], [0.5 * MAX_STEP, -MAX_STEP], atol=1e-6)


def test_standing_still_is_truncated_not_terminated():
    env = ToyEnv(SETTINGS)
    env.reset(0)
    results = [env.step(np.zeros(2)) for _ in range(40)]
    assert [r.truncated for r in results] == [False] * 39 + [True]
    assert not any(r.terminated for r in results)
    assert sum(r.reward for r in results) == pytest.approx(0.0)


def test_an_episode_may_go_on_after_success_and_pays_the_bonus_once():
    env = ToyEnv(replace(SETTINGS, episode_ends_on_success=False, reward=RewardSettings("sparse")))
    env.reset(1)
    results = [env.step(towards(env.observe())) for _ in range(40)]
    assert sum(r.success for r in results) > 2
    assert not any(r.terminated for r in results)
    assert results[-1].truncated
    assert sum(r.reward for r in results) == 1.0


def test_the_picture_shows_the_disc_and_the_goal():
    env = ToyEnv(replace(SETTINGS, cameras=(CameraSettings("c", 201, 201),)))
    env.reset(5)
    row = env.observe()
    image = row.images["c"]
    for colour, (x, y) in (((50, 90, 230), row.state[:2]), ((40, 200, 80), row.state[2:])):
        rows, columns = np.nonzero((image == colour).all(axis=2))
        assert len(rows) > 50
        assert columns.mean() / 100 - 1 == pytest.approx(x, abs=0.05)
        assert 1 - rows.mean() / 100 == pytest.approx(y, abs=0.05)


def test_stepping_before_reset_is_refused():
    with pytest.raises(RuntimeError, match="before reset"):
        ToyEnv(SETTINGS).step(np.zeros(2))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env_id": "ToyReech-v0"}, "did you mean ToyReach-v0"),
        ({"control_mode": "pd_joint_pos"}, "env.control_mode"),
        ({"state_terms": ("qpos",)}, "env.state_terms"),
        ({"cameras": (CameraSettings("c", 8, 8, fov=1.0),)}, "a name and a size only"),
        ({"make_kwargs": {"wind": 3}}, "env.make_kwargs"),
    ],
)
def test_what_the_toy_lacks_is_refused(changes, words):
    with pytest.raises(EnvSetupError, match=words):
        ToyEnv(replace(SETTINGS, **changes))
