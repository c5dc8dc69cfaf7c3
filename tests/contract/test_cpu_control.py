"""Our control step against ManiSkill's own: the same drive targets, states and controllers, bit for bit."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from assets_at import assets_root
from vec_env_factories import PUSH_CUBE, PUT_ON_PLATE

from rlft_envs.maniskill.env import ManiSkillEnv

pytestmark = pytest.mark.simulator

PANDA = replace(PUSH_CUBE, num_envs=1, cameras=(), make_kwargs={})
WIDOWX = replace(PUT_ON_PLATE, num_envs=1, cameras=())
PANDA_MODES = ["pd_joint_pos", "pd_joint_delta_pos", "pd_joint_target_delta_pos", "pd_ee_delta_pos"]
PANDA_MODES += ["pd_ee_delta_pose", "pd_ee_target_delta_pos", "pd_ee_target_delta_pose", "pd_ee_pose"]
BODY_FRAMES = {
    "pd_ee_delta_pos": ("body_translation",),
    "pd_ee_delta_pose": (
        "body_translation:root_aligned_body_rotation",
        "body_translation:body_aligned_body_rotation",
        "root_translation:body_aligned_body_rotation",
    ),
}
CASES = [
    *(pytest.param(PANDA, mode, None, id=mode) for mode in PANDA_MODES),
    *(pytest.param(PANDA, mode, f, id=f"{mode}-{f}") for mode, frames in BODY_FRAMES.items() for f in frames),
    pytest.param(WIDOWX, WIDOWX.control_mode, None, id="widowx"),
]
STEPS = 60


def controllers(task):
    return task.agent.controller.controllers


def pair(settings, mode, frame=None):
    """One environment that is to step by our arithmetic, and one that ManiSkill is to step."""
    if settings is WIDOWX:
        settings = replace(settings, assets_root=str(assets_root()))
    envs = [ManiSkillEnv(replace(settings, control_mode=mode)) for _ in range(2)]
    for env in envs if frame is not None else ():
        controllers(env.unwrapped)["arm"].config.frame = frame
    return envs


def targets(task):
    """What SAPIEN's joints are driven to, ``[2, dof]``: positions and velocities."""
    joints = [joint._objs[0] for joint in task.agent.robot.active_joints]
    return np.array([[j.drive_target[0] for j in joints], [j.drive_velocity_target[0] for j in joints]])


def kept(task):
    """What the controllers remember, by name."""
    names = ("_start_qpos", "_target_qpos")
    found = {f"{k}{n}": getattr(c, n, None) for k, c in controllers(task).items() for n in names}
    poses = {f"{k}_target_pose": getattr(c, "_target_pose", None) for k, c in controllers(task).items()}
    found |= {name: getattr(pose, "raw_pose", None) for name, pose in poses.items()}
    return {name: value for name, value in found.items() if value is not None}


def put(task, rng):
    """Somewhere within the joint limits; the controllers' targets stay as they are."""
    low, high = task.agent.robot.get_qlimits()[0].numpy().T
    middle, half = (low + high) / 2, (high - low) / 2
    return torch.from_numpy((middle + 0.7 * half * rng.uniform(-1, 1, len(low))).astype(np.float32))[None]


def assert_same(ours, theirs, step):
    where = f"after step {step}"
    np.testing.assert_array_equal(targets(ours), targets(theirs), where)
    mine, others = kept(ours), kept(theirs)
    assert mine.keys() == others.keys()
    for name, value in mine.items():
        assert value.dtype == others[name].dtype
        np.testing.assert_array_equal(value, others[name], f"{name} {where}")
    np.testing.assert_array_equal(ours.get_state(), theirs.get_state(), where)


@pytest.mark.parametrize(("settings", "mode", "frame"), CASES)
def test_the_joints_are_driven_to_the_very_same_targets(settings, mode, frame):
    ours, theirs = pair(settings, mode, frame)
    rng = np.random.default_rng(0)
    space = ours.unwrapped.single_action_space
    moved, widths = set(), np.where(np.isfinite(space.low), 1.3, 0.0)  # beyond the bounds, where a controller clips
    for seed in range(2):
        ours.reset(seed)
        theirs.reset(seed)
        for step in range(STEPS):
            if step % 20 == 19:
                qpos = put(ours.unwrapped, rng)
                for env in (ours, theirs):
                    env.unwrapped.agent.robot.set_qpos(qpos)
            middle, half = (space.high + space.low) / 2, (space.high - space.low) / 2
            share = widths * rng.uniform(-1, 1, len(middle)) * (0.1, 1.0)[step % 2]
            action = (middle + half * share).astype(np.float32)
            mine = ours.step(action)
            theirs.unwrapped._step_action(torch.from_numpy(action)[None])
            theirs.unwrapped._elapsed_steps += 1
            info = theirs.unwrapped.get_info()
            assert mine.success == bool(info["success"])
            assert_same(ours.unwrapped, theirs.unwrapped, step)
            moved.add(targets(ours.unwrapped).tobytes())
    assert ours._control._parts is not None
    assert len(moved) > STEPS  # or nothing was tested
    ours.close()
    theirs.close()


def test_an_episode_is_the_one_of_maniskills_own_step():
    """Reward, success and metrics too, as ``BaseEnv.step`` reports them."""
    ours, theirs = pair(PANDA, "pd_ee_delta_pos")
    ours.reset(3)
    theirs.reset(3)
    actions = np.random.default_rng(1).uniform(-1, 1, (40, 4)).astype(np.float32)
    for action in actions:
        before = ours._dense
        mine = ours.step(action)
        _, reward, _, _, info = theirs.unwrapped.step(torch.from_numpy(action)[None])
        assert mine.reward == float(reward) - before
        assert mine.success == bool(info["success"])
        np.testing.assert_array_equal(ours.observe().privileged, theirs.observe().privileged)
    ours.close()
    theirs.close()


def halving(base, method):
    """A subclass whose method halves its action first."""
    return type("Other", (base,), {method: lambda self, action: getattr(base, method)(self, action / 2)})


@pytest.mark.parametrize("why", ["interpolates its targets", "of its own", "is not covered"])
def test_what_is_not_covered_is_left_to_maniskill(why, caplog):
    ours, theirs = pair(PANDA, "pd_ee_delta_pos")
    for task in (ours.unwrapped, theirs.unwrapped):
        arm = controllers(task)["arm"]
        if why == "interpolates its targets":
            arm.config.interpolate = True
        elif why == "of its own":
            task.agent.__class__ = halving(type(task.agent), "set_action")
        else:
            arm.__class__ = halving(type(arm), "set_action")
    ours.reset(0)
    theirs.reset(0)
    with caplog.at_level(logging.DEBUG, logger="rlft_envs.maniskill.control"):
        for action in np.random.default_rng(0).uniform(-1, 1, (5, 4)).astype(np.float32):
            ours.step(action)
            theirs.unwrapped._step_action(torch.from_numpy(action)[None])
            np.testing.assert_array_equal(targets(ours.unwrapped), targets(theirs.unwrapped))
    assert [why in record.message for record in caplog.records] == [True]  # said once
    ours.close()
    theirs.close()
