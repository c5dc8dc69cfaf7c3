"""The WidowX plan on the real simulator: the gripper's measures, success, replay, and what is not a success."""

from dataclasses import replace

import numpy as np
import pytest
from assets_at import assets_root
from vec_env_factories import WIDOWX as SETTINGS

from rlft.types import DemoAttempt, RewardSettings
from rlft_envs.record import RecordSettings, record
from rlft_envs.simulator import build_single_env
from rlft_envs.task import make_expert
from rlft_tasks.planners.grasps import WIDOWX

pytestmark = pytest.mark.simulator

TASKS = {
    "PutCarrotOnPlateInScene-v1": 60,
    "PutSpoonOnTableClothInScene-v1": 60,
    "StackGreenCubeOnYellowCubeBakedTexInScene-v1": 60,
    "PutOnPlateInScene25Single-v1": 80,
    "PutOnPlateInScene25Main-v3": 80,
}
SEEDS = range(4)
ALONE = replace(SETTINGS, num_envs=1, max_episode_steps=400, cameras=(), privileged=False, render_backend="none")


@pytest.fixture(scope="module")
def build():
    made = {}

    def make(task):
        if task not in made:
            made[task] = build_single_env(
                replace(ALONE, env_id=task, assets_root=str(assets_root()), reward=RewardSettings(mode="sparse"))
            )
        return made[task]

    yield make
    for env in made.values():
        env.close()


def attempt(env, seed, limit=80):
    return record(env, make_expert, DemoAttempt(seed, seed, seed), RecordSettings(max_steps=limit))


@pytest.mark.parametrize("task", TASKS)
def test_the_plan_solves_its_task_in_time(build, task):
    found = [attempt(build(task), seed, TASKS[task]) for seed in SEEDS]
    failed = [(r.attempt.seed, r.outcome, r.message) for r in found if r.outcome != "success"]
    assert len(failed) <= (task == "PutOnPlateInScene25Main-v3"), failed
    for r in found:
        grips = np.stack(r.actions)[:, 6]
        assert set(grips.tolist()) == {-1.0, 1.0}
        if r.outcome == "success":
            assert grips[-1] == 1.0  # it has let go


def test_recorded_actions_reproduce_the_episode(build):
    env = build("PutCarrotOnPlateInScene-v1")
    found = attempt(env, 3)
    env.reset(3)
    for action, state in zip(found.actions, found.states):
        assert np.array_equal(env.observe().state, state)
        success = env.step(action).success
    assert success


def test_the_commanded_pose_is_the_planned_one(build):
    """The encoder and the controller agree on what the seven numbers mean."""
    env = build("StackGreenCubeOnYellowCubeBakedTexInScene-v1")
    env.reset(0)
    expert = make_expert(env)
    arm, control = expert._arm, expert._control
    rng = np.random.default_rng(0)
    for _ in range(5):
        wanted = np.clip(arm.joints() + rng.uniform(-0.15, 0.15, 6), arm.lower, arm.upper)
        env.step(control.assemble(control.encode(wanted).action, 1.0))
        assert np.allclose(control._tool_start(), arm.forward(wanted), atol=1e-5)


def test_the_gripper_measures_are_those_of_its_meshes(build):
    env = build("PutCarrotOnPlateInScene-v1")
    env.reset(0)
    robot, arm = env.unwrapped.agent.robot, make_expert(env)._arm
    tool = np.linalg.inv(arm.base() @ arm.forward(arm.joints()))
    inner, outer, tips, across = [], [], [], []
    for name, sign in (("left_finger_link", 1.0), ("right_finger_link", -1.0)):
        link = robot.links_map[name]
        (shape,) = link._objs[0].get_collision_shapes()
        local = shape.local_pose.to_transformation_matrix()
        vertices = np.asarray(shape.vertices) * shape.scale @ local[:3, :3].T + local[:3, 3]
        T = tool @ link.pose.to_transformation_matrix()[0].numpy()
        points = vertices @ T[:3, :3].T + T[:3, 3]
        tip = points[points[:, 0] > points[:, 0].max() - 0.005]
        inner.append((sign * tip[:, 1]).min())
        outer.append((sign * points[:, 1]).max())
        tips.append(points[:, 0].max())
        across.append(np.ptp(tip[:, 2]))
    opening = sum(inner)
    joints = robot.get_qpos()[0, -2:].numpy().sum()
    lower = robot.get_qlimits()[0, -2:, 0].numpy().sum()
    assert opening - 0.004 <= WIDOWX.opening <= opening + 0.001  # further up the fingers are a little nearer together
    assert opening - (joints - lower) - 0.004 <= WIDOWX.closed <= opening - (joints - lower) + 0.001
    assert sum(outer) / 2 - opening / 2 <= WIDOWX.finger_thickness <= sum(outer) / 2 - opening / 2 + 0.006
    assert max(tips) == pytest.approx(WIDOWX.reach, abs=5e-4)
    assert max(across) == pytest.approx(WIDOWX.finger_width, abs=2e-3)
