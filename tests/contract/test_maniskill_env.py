"""What is ManiSkill's own: cameras, state terms, variations, and refusals in words."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from vec_env_factories import PUSH_CUBE

from rlft.types import CameraSettings, RewardSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.maniskill.env import ManiSkillEnv

pytestmark = pytest.mark.simulator

STATE_ONLY = replace(PUSH_CUBE, num_envs=1, cameras=(), make_kwargs={})
PICK_CUBE = replace(STATE_ONLY, env_id="PickCube-v1")
GPU = {"num_envs": 4, "sim_backend": "gpu", "sim_device": "cuda:1"}
GOALS = {"PushCube-v1": "goal_region", "PickCube-v1": "goal_site"}
OBJECTS = {"PushCube-v1": "obj", "PickCube-v1": "cube"}


@pytest.fixture
def build():
    built = []

    def make(settings, **variation):
        env = ManiSkillEnv(replace(settings, make_kwargs={"variation": variation}))
        built.append(env)
        return env

    yield make
    for env in built:
        env.close()


def layout(env, seeds):
    """Start positions of object and goal over seeds, each ``[n, 3]`` metres, and the object's quaternions."""
    task = env.unwrapped
    places = []
    for seed in seeds:
        env.reset(seed)
        cube, goal = (getattr(task, names[env.spec.env_id]) for names in (OBJECTS, GOALS))
        places.append([cube.pose.p[0].numpy().copy(), goal.pose.p[0].numpy().copy(), cube.pose.q[0].numpy().copy()])
    return (np.array([place[i] for place in places]) for i in range(3))


@pytest.mark.parametrize("settings", [STATE_ONLY, PICK_CUBE], ids=lambda s: s.env_id)
def test_a_variation_moves_object_and_goal_and_nothing_else(build, settings):
    seeds = range(40)
    plain = build(settings)
    varied = build(settings, object_region=[[-0.1, 0.0], [0.05, 0.15]], goal_offset=[0.02, -0.03])
    cube_0, goal_0, _ = layout(plain, seeds)
    cube, goal, _ = layout(varied, seeds)
    assert (cube[:, :2] >= [-0.1, 0.05]).all()
    assert (cube[:, :2] <= [0.0, 0.15]).all()
    assert np.ptp(cube[:, :2], axis=0).min() > 0.08
    np.testing.assert_allclose(cube[:, 2], cube_0[:, 2], atol=1e-6)
    shift = np.array([0.02, -0.03, 0.0])
    if settings.env_id == "PushCube-v1":  # the goal follows the cube
        np.testing.assert_allclose(goal - cube, goal_0 - cube_0 + shift, atol=1e-6)
    else:
        np.testing.assert_allclose(goal, goal_0 + shift, atol=1e-6)
    for seed in (3, 4):  # the robot starts where it would have started
        plain.reset(seed)
        varied.reset(seed)
        assert torch.equal(plain.unwrapped.agent.robot.get_qpos(), varied.unwrapped.agent.robot.get_qpos())
    again, _, _ = layout(varied, seeds)
    assert np.array_equal(again, cube)


def test_heading_size_mass_and_friction(build):
    env = build(STATE_ONLY, object_yaw=[0.5, 0.6], object_half_size=0.03, object_mass=0.5, object_friction=0.05)
    cube, _, q = layout(env, range(10))
    yaw = 2 * np.arctan2(q[:, 3], q[:, 0])
    assert ((yaw >= 0.5) & (yaw <= 0.6)).all()
    assert np.ptp(yaw) > 0.02
    np.testing.assert_allclose(cube[:, 2], 0.03, atol=1e-6)
    body = env.unwrapped.obj._bodies[0]
    assert body.mass == pytest.approx(0.5)
    np.testing.assert_allclose(body.inertia, 0.5 * (2 * 0.03) ** 2 / 6, rtol=1e-4)  # a solid cube's m a²/6
    assert [s.physical_material.static_friction for s in body.get_collision_shapes()] == [pytest.approx(0.05)]
    table = env.unwrapped.table_scene.table._bodies[0].get_collision_shapes()[0]
    assert table.physical_material.static_friction > 0.1  # the table's is not shared with the cube's


def test_friction_changes_how_far_the_cube_slides(build):
    distances = []
    for friction in (0.02, 1.0):
        env = build(STATE_ONLY, object_friction=friction)
        env.reset(0)
        cube = env.unwrapped.obj
        start = cube.pose.p[0, 0].item()
        cube.set_linear_velocity(torch.tensor([[0.5, 0.0, 0.0]]))
        for _ in range(10):
            env.step(np.zeros(4, np.float32))
        distances.append(cube.pose.p[0, 0].item() - start)
    assert distances[0] > 2 * distances[1] > 0


def test_the_camera_setting_moves_the_camera(build):
    near = CameraSettings("base_camera", 40, 48, fov=0.6, eye=(0.3, 0.0, 0.4), target=(0.0, 0.0, 0.0))
    settings = replace(STATE_ONLY, cameras=(near,))
    env = build(settings)
    env.reset(0)
    a = env.observe().images["base_camera"]
    assert a.shape == (40, 48, 3)
    b_env = build(replace(settings, cameras=(replace(near, eye=(0.0, 0.4, 0.4)),)))
    b_env.reset(0)
    assert np.abs(a.astype(int) - b_env.observe().images["base_camera"]).mean() > 5
    config = env.unwrapped.scene.sensors["base_camera"].config
    assert config.fov == pytest.approx(0.6)
    assert env.human_view().shape == (256, 256, 3)


def test_state_terms_in_order(build):
    env = build(replace(STATE_ONLY, state_terms=("goal_pos", "tcp_pose", "qpos", "qvel", "gripper", "tcp_pos")))
    env.reset(1)
    state = env.observe().state
    robot, task = env.unwrapped.agent, env.unwrapped
    assert state.shape == (3 + 7 + 9 + 9 + 1 + 3,)
    np.testing.assert_array_equal(state[:3], task.goal_region.pose.p[0])
    np.testing.assert_array_equal(state[3:6], state[-3:])
    np.testing.assert_array_equal(state[10:19], robot.robot.get_qpos()[0])
    assert state[-4] == pytest.approx(0.04)  # the open gripper's finger


def test_without_a_renderer_state_works_and_recording_is_refused(build):
    env = build(STATE_ONLY)
    env.reset(0)
    assert env.observe().images == {}
    with pytest.raises(EnvSetupError, match=r"sim\.render_backend"):
        env.human_view()


def test_dense_reward_starts_from_the_first_state(build):
    env = build(replace(STATE_ONLY, reward=RewardSettings("dense_difference", 1.0, 0.0)))
    env.reset(0)
    task = env.unwrapped
    start = float(task.compute_normalized_dense_reward({}, torch.zeros(1, 4), task.get_info()))
    rewards = [env.step(np.array([0.1, 0, -0.1, -1], np.float32)).reward for _ in range(5)]
    end = float(task.compute_normalized_dense_reward({}, torch.zeros(1, 4), task.get_info()))
    assert sum(rewards) == pytest.approx(end - start, abs=1e-6)
    assert abs(end - start) > 1e-3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env_id": "PushCub-v1"}, "did you mean PushCube-v1"),
        ({"control_mode": "pd_ee_delta_poss"}, "pd_ee_delta_pos"),
        ({"cameras": (CameraSettings("bas_camera", 32, 32),)}, "bas_camera"),
        ({"cameras": (CameraSettings("base_camera", 32, 32, eye=(0.0, 0.0, 1.0)),)}, "eye and target go together"),
        ({"state_terms": ("tcp_poss",)}, "did you mean tcp_pos"),
        ({"make_kwargs": {"gravity": 3}}, "gravity"),
        ({"env_id": "StackCube-v1", "make_kwargs": {"variation": {"object_mass": 1}}}, "v1 takes no variation"),
        ({"instruction": " "}, r"env\.instruction is empty"),
        ({"sim_backend": "tpu"}, "allowed: cpu, gpu"),
        ({**GPU, "render_backend": "cuda:0"}, r"sim\.render_backend = 'cuda:0', .* sim\.device=cuda:1"),
        ({**GPU, "make_kwargs": {"enhanced_determinism": True}}, "every partial reset would draw the same numbers"),
        ({**GPU, "make_kwargs": {"reconfiguration_freq": 1}}, r"env\.make_kwargs\.reconfiguration_freq = 1: with GPU"),
        ({"env_id": "PickSingleYCB-v1"}, "python -m mani_skill.utils.download_asset PickSingleYCB-v1"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(changes, words):
    with pytest.raises(EnvSetupError, match=words):
        ManiSkillEnv(replace(STATE_ONLY, **changes))


def test_the_dense_reward_may_be_left_to_the_chunks_last_step(build):
    each = build(replace(STATE_ONLY, reward=RewardSettings("dense_difference", 3.0, 1.0)))
    once = build(replace(STATE_ONLY, reward=RewardSettings("dense_difference", 3.0, 1.0), reward_per_chunk=True))
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 5, 4)).astype(np.float32)
    for env in (each, once):
        env.reset(0)
    for chunk in actions:
        sums = [sum(env.step(a, env is each or j == 4).reward for j, a in enumerate(chunk)) for env in (each, once)]
        assert sums[0] == pytest.approx(sums[1], abs=1e-6)
        assert abs(sums[0]) > 1e-4
        np.testing.assert_array_equal(each.unwrapped.get_state(), once.unwrapped.get_state())
