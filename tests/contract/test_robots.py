"""Robots and control modes that settings describe, on the real simulator."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from vec_env_factories import PUSH_CUBE

from rlft_envs.errors import EnvSetupError
from rlft_envs.simulator import build_single_env

pytestmark = pytest.mark.simulator

REST = [0.0, 0.4, 0.0, -2.0, 0.0, 2.4, 0.785, 0.04, 0.04]
SLOW = {"arm": {"from": "pd_ee_delta_pos.arm", "pos_lower": -0.05, "pos_upper": 0.05}}
SLOW["gripper"] = {"from": "pd_ee_delta_pos.gripper"}
SETTINGS = replace(PUSH_CUBE, num_envs=1, num_workers=0, cameras=(), reward_per_chunk=False)


def env_with(control_mode="slow", **robot):
    return build_single_env(replace(SETTINGS, robot="mine", control_mode=control_mode, make_kwargs={"robot": robot}))


def reach(env, steps=6):
    """How far the tool goes in x under a third of the largest action, metres."""
    env.reset(3)
    before = env.observe().state[0]
    for _ in range(steps):
        env.step(np.array([0.3, 0.0, 0.0, 1.0], np.float32))
    return env.observe().state[0] - before


def test_a_control_mode_of_ones_own_and_where_the_robot_rests():
    known = build_single_env(replace(SETTINGS, control_mode="pd_ee_delta_pos"))
    slow = env_with(like="panda", control_modes={"slow": SLOW})
    mine = env_with(like="panda", rest=REST, control_modes={"slow": SLOW})
    assert mine.spec.control_mode == "slow"
    assert reach(slow) == pytest.approx(reach(known) / 2, rel=0.2)
    for seed in (0, 1):
        mine.reset(seed)
        assert mine.unwrapped.agent.robot.get_qpos()[0].numpy() == pytest.approx(np.float32(REST))
    for env in (known, slow, mine):
        env.close()


def test_a_robot_that_only_a_file_describes():
    import mani_skill

    urdf = Path(mani_skill.PACKAGE_ASSET_DIR) / "robots" / "panda" / "panda_v2.urdf"
    arm = {"control": "joint_pos", "joint_names": [f"panda_joint{i}" for i in range(1, 8)], "use_delta": True}
    arm |= {"lower": -0.1, "upper": 0.1, "stiffness": 1000.0, "damping": 100.0}
    described = {"urdf": str(urdf), "rest": REST, "position": [-0.615, 0.0, 0.0], "tool_link": "panda_hand_tcp"}
    env = env_with("turn", **described, control_modes={"turn": {"arm": arm}})
    assert len(env.spec.action_low) == 7
    env.reset(0)
    before = env.observe().state
    for _ in range(3):
        env.step(np.array([1.0, 0, 0, 0, 0, 0, 0], np.float32))
    turned = env.unwrapped.agent.robot.get_qpos()[0, 0]
    assert 0.05 < turned < 0.35  # rad: three steps of at most 0.1, behind which the joint lags
    assert np.abs(env.observe().state - before).max() > 0.05
    env.close()


@pytest.mark.parametrize(
    ("robot", "message"),
    [
        ({"like": "pandaa"}, "env.make_kwargs.robot.like = 'pandaa' is not known; did you mean panda"),
        ({"lik": "panda"}, "env.make_kwargs.robot = 'lik' is not known; did you mean like"),
        ({"urdf": "x.urdf"}, "without like, urdf, rest and tool_link are needed"),
        ({"like": "panda", "urdf": "nowhere.urdf"}, "no such file"),
        ({"like": "panda", "control_modes": {"slow": {"arm": {}}}}, "slow.arm: give from or control"),
        ({"like": "panda", "control_modes": {"slow": {"arm": {"from": "pd_ee_delta.arm"}}}}, "mean pd_ee_delta"),
        ({"like": "panda", "control_modes": {"slow": {"arm": {"control": "joint"}}}}, "mean joint_vel or joint_pos"),
        (
            {"like": "panda", "control_modes": {"slow": {**SLOW, "arm": {**SLOW["arm"], "pos_low": 1}}}},
            "'pos_low' is not known; did you mean pos_lower",
        ),
        ({"like": "panda", "rest": [0.0], "control_modes": {"slow": SLOW}}, "rest has 1 numbers; mine has 9 joints"),
    ],
)
def test_what_cannot_be_used_is_named(robot, message):
    with pytest.raises(EnvSetupError, match=message.replace(".", r"\.")):
        env_with(**robot)  # builds and so resets


def test_a_description_needs_a_name():
    with pytest.raises(EnvSetupError, match=r"give it a name by env\.robot"):
        build_single_env(replace(SETTINGS, make_kwargs={"robot": {"like": "panda"}}))
