"""The planners on the real simulator: kinematics, success, replay, and collection by worker processes."""

import dataclasses

import numpy as np
import pytest
from vec_env_factories import PUSH_CUBE

from rlft.config.schema import CollectConfig, RunConfig
from rlft.data.collect import CollectError, collect
from rlft.data.dataset import DemoSet
from rlft.types import CameraSettings, DemoAttempt, RewardSettings
from rlft_envs.errors import EnvSetupError, PlanError
from rlft_envs.record import RecordSettings, record
from rlft_envs.simulator import build_single_env
from rlft_envs.task import expert_of, make_expert

pytestmark = [
    pytest.mark.simulator,
    # PullCube builds an actor without a pose, and mani_skill says so by a method that logging calls deprecated.
    pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning:mani_skill"),
]

SEEDS = range(10)
FREE, TURNED = {"goal_offset": [-0.1, 0.15], "object_yaw": [-3.0, 3.0]}, {"object_region": [[-0.15, 0.1], [-0.2, 0.2]]}
CASES = [
    *(("PushCube-v1", mode, None) for mode in ("pd_joint_pos", "pd_ee_delta_pos", "pd_joint_delta_pos")),
    ("PushCube-v1", "pd_ee_delta_pos", FREE),
    ("PullCube-v1", "pd_ee_delta_pos", None),
    *(("PickCube-v1", mode, None) for mode in ("pd_joint_pos", "pd_ee_delta_pos", "pd_ee_target_delta_pose")),
    ("PickCube-v1", "pd_ee_delta_pose", TURNED),
    *(("StackCube-v1", mode, None) for mode in ("pd_joint_pos", "pd_ee_delta_pose")),
]


def settings(env_id, control_mode, variation=None, **changes):
    kwargs = {} if variation is None else {"variation": variation}
    alone = {"num_envs": 1, "max_episode_steps": 400, "robot": "panda", "privileged": False, "cameras": ()}
    alone |= {"env_id": env_id, "control_mode": control_mode, "make_kwargs": kwargs, "state_terms": ("tcp_pos",)}
    return dataclasses.replace(PUSH_CUBE, reward=RewardSettings("sparse"), **(alone | changes))


@pytest.fixture(scope="module")
def push():
    env = build_single_env(settings("PushCube-v1", "pd_ee_delta_pos"))
    env.reset(0)
    yield env
    env.close()


def attempt(env, seed, **how):
    return record(env, make_expert, DemoAttempt(seed, seed, seed), RecordSettings(**how))


@pytest.mark.parametrize(("env_id", "control_mode", "variation"), CASES)
def test_the_oracle_solves_its_task_within_the_action_bounds(env_id, control_mode, variation):
    env = build_single_env(settings(env_id, control_mode, variation))
    found = [attempt(env, seed) for seed in SEEDS]
    failed = [(r.attempt.seed, r.outcome, r.message) for r in found if r.outcome != "success"]
    assert len(failed) <= 1, failed
    actions = np.concatenate([np.stack(r.actions) for r in found])
    # Nothing was left for the controller to clip.
    assert (actions >= np.asarray(env.spec.action_low) - 1e-6).all()
    assert (actions <= np.asarray(env.spec.action_high) + 1e-6).all()
    env.close()


def test_recorded_actions_reproduce_the_episode(push):
    found = attempt(push, 3)
    push.reset(3)
    results = []
    for action, state in zip(found.actions, found.states):
        assert np.array_equal(push.observe().state, state)
        results.append(push.step(action).success)
    assert results.index(True) + 1 == found.success_step


def test_an_attempt_does_not_depend_on_those_before_it(push):
    first = attempt(push, 5)
    attempt(push, 6)
    again = attempt(push, 5)
    assert np.array_equal(np.stack(first.actions), np.stack(again.actions))
    assert np.array_equal(np.stack(first.states), np.stack(again.states))


def test_disturbed_episodes_succeed_and_record_the_corrections(push):
    found = [attempt(push, seed, action_noise=0.1) for seed in range(5)]
    assert sum(r.outcome == "success" for r in found) >= 4
    calm = attempt(push, 0)
    n = min(len(calm.actions), len(found[0].actions))
    assert not np.allclose(np.stack(calm.actions)[:n, :3], np.stack(found[0].actions)[:n, :3])


def test_forward_kinematics_agree_with_the_simulation(push):
    push.reset(1)
    arm = make_expert(push)._arm
    simulated = push.unwrapped.agent.tcp.pose.to_transformation_matrix()[0].numpy()
    assert np.allclose(arm.base() @ arm.forward(arm.joints()), simulated, atol=1e-5)


def test_inverse_kinematics_invert_forward_kinematics(push):
    arm = make_expert(push)._arm
    rng = np.random.default_rng(0)
    start = arm.joints()
    for _ in range(20):
        wanted = np.clip(start + rng.uniform(-0.4, 0.4, len(start)), arm.lower, arm.upper)
        found = arm.inverse(arm.forward(wanted), start)
        assert np.allclose(arm.forward(found), arm.forward(wanted), atol=1.1e-3)
        assert (found >= arm.lower).all()
        assert (found <= arm.upper).all()


def test_a_pose_out_of_reach_is_said_to_be(push):
    arm = make_expert(push)._arm
    far = arm.forward(arm.joints())
    far[:3, 3] = [1.5, 0.0, 0.2]
    with pytest.raises(PlanError, match=r"no joint solution.*\[1.5, 0.0, 0.2\]") as caught:
        arm.inverse(far, arm.joints())
    assert caught.value.kind == "ik"


def test_tasks_and_modes_without_a_planner_are_refused():
    known = r"PegInsertionSide-v1.*PickCube-v1, PullCube-v1, PushCube-v1, Put.*, StackCube-v1"
    with pytest.raises(EnvSetupError, match=known):
        expert_of(settings("PegInsertionSide-v1", "pd_ee_delta_pos"))
    env = build_single_env(settings("PushCube-v1", "pd_joint_vel"))
    env.reset(0)
    with pytest.raises(EnvSetupError, match=r"pd_joint_vel.*use one of pd_joint_pos"):
        make_expert(env)
    env.close()


def test_a_gripper_that_never_moves_is_declared_still(push):
    assert make_expert(push).frozen_action_dims == (3,)
    actions = np.stack(attempt(push, 0).actions)
    assert (actions[:, 3] == actions[0, 3]).all()


def config(procs, episodes=5):
    return RunConfig(name="contract", seed=4, collect=CollectConfig(num_episodes=episodes, num_procs=procs))


def test_two_processes_collect_what_one_does(tmp_path):
    env = settings("PushCube-v1", "pd_ee_delta_pos", cameras=(CameraSettings("base_camera", 16, 16, fov=1.0),))
    sets = []
    for procs in (1, 2):
        root = tmp_path / str(procs)
        result = collect(config(procs), env, root, root / "dataset")
        assert (result["episodes"], result["success_rate"]) == (5, 1.0)
        sets.append(DemoSet.load(root / "dataset", horizon=5))
    one, two = sets
    assert one.meta.seeds == two.meta.seeds
    assert one.meta.frozen_action_dims == (3,)
    assert one.lengths.tolist() == two.lengths.tolist()
    for a, b in ((one.state, two.state), (one.action, two.action), *zip(one.images.values(), two.images.values())):
        assert np.array_equal(a.numpy(), b.numpy())
    images = one.images["base_camera"].float()
    assert images.std() > 5.0  # something is to be seen
    assert (images[0] - images[15]).abs().max() > 20.0  # and it moves


def test_a_collection_for_a_task_without_planner_says_so(tmp_path):
    env = dataclasses.replace(settings("PushT-v1", "pd_ee_delta_pose"), robot=None)
    with pytest.raises(CollectError, match="has no planner"):
        collect(config(1, 1), env, tmp_path, tmp_path / "dataset")


def test_coarser_visuals_change_the_image_little_and_the_motion_not_at_all():
    """About four times fewer milliseconds an image; the physics must not notice."""
    camera = CameraSettings("base_camera", 56, 56, fov=1.0)
    found = {}
    for name, extra in (("fine", {}), ("coarse", {"visual_cell": 0.01})):
        how = {"cameras": (camera,), "make_kwargs": extra}
        env = build_single_env(settings("PushCube-v1", "pd_ee_delta_pos", **how))
        found[name] = attempt(env, 2)
        triangles = [len(p.triangles) for b in _robot_bodies(env) for s in b.render_shapes for p in s.parts]
        found[f"{name} triangles"] = sum(triangles)
        env.close()
    fine, coarse = found["fine"], found["coarse"]
    assert found["coarse triangles"] < found["fine triangles"] / 5
    assert np.array_equal(np.stack(fine.actions), np.stack(coarse.actions))
    images = [np.stack(r.images["base_camera"]).astype(float) for r in (fine, coarse)]
    assert 0.0 < np.abs(images[0] - images[1]).mean() < 4.0


def _robot_bodies(env):
    import sapien.render

    entities = [link._objs[0].entity for link in env.unwrapped.agent.robot.links]
    found = [entity.find_component_by_type(sapien.render.RenderBodyComponent) for entity in entities]
    return [body for body in found if body is not None]
