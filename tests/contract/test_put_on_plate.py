"""PutOnPlateInScene25 on the real simulator."""

from dataclasses import replace

import numpy as np
import pytest
from assets_at import assets_root
from vec_env_factories import PUT_ON_PLATE

from rlft.types import CameraSettings, EnvSettings, RewardSettings
from rlft_tasks.put_on_plate.variants import PREFIX, VARIANTS

pytestmark = pytest.mark.simulator

IDLE = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)


def settings(name, split="train", **changes) -> EnvSettings:
    base = replace(PUT_ON_PLATE, env_id=f"{PREFIX}{name}", cameras=(), make_kwargs={"obj_set": split}, num_envs=1)
    return replace(base, **{"assets_root": str(assets_root()), "privileged": True, **changes})


@pytest.fixture(scope="module")
def build():
    from rlft_envs.maniskill.env import ManiSkillEnv

    made = {}

    def get(name, split="train", **changes):
        key = (name, split, *changes)
        if key not in made:
            made[key] = ManiSkillEnv(settings(name, split, **changes))
        return made[key]

    yield get
    for env in made.values():
        env.close()


def resting(env):
    """Positions of what the running episode shows, and the configuration it should show."""
    scene = env.unwrapped
    return {role: actor.pose.p[0].numpy() for role, actor in scene.objs.items()}, scene.running[0]


@pytest.mark.parametrize("name", [env_id.removeprefix(PREFIX) for env_id in VARIANTS])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_number_shows_its_configuration_at_rest(build, name, split):
    env = build(name, split)
    n = env.spec.num_configurations
    for configuration_id in (0, n // 3, n - 1):
        env.reset(0, configuration_id)
        at, c = resting(env)
        assert c == env.unwrapped.configurations(split)[configuration_id]
        assert env.instruction == c.instruction
        for role, thing in c.things.items():
            assert np.linalg.norm(at[role][:2] - thing.at[:2]) < 0.1  # what falls onto its side rolls
            assert 0.85 < at[role][2] < 1.0
        before = env.observe().privileged
        for _ in range(2):
            env.step(IDLE)
        np.testing.assert_allclose(resting(env)[0]["source"], at["source"], atol=2e-3)  # it lies still
        assert env.observe().privileged.shape == before.shape
        np.testing.assert_allclose(env.observe().state[:6], np.add(np.array(HOME[:6]), c.qpos_offset), atol=0.02)


HOME = (-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398)


@pytest.mark.parametrize("configuration_id", [0, 401, 3135])
def test_rest_is_where_things_fall_in_the_running_simulation(build, configuration_id):
    """The published way: lift the robot, drop the things, wait."""
    import sapien

    env = build("Single-v1")
    env.reset(0, configuration_id)
    at, c = resting(env)
    scene = env.unwrapped
    scene.agent.robot.set_pose(sapien.Pose([0.147, 0.028, 1.870], [0, 0, 0, 1]))
    for role, thing in c.things.items():
        turned = [np.cos(thing.yaw / 2), 0, 0, np.sin(thing.yaw / 2)]
        scene.objs[role].set_pose(sapien.Pose(thing.at, turned))
    for _ in range(650):
        scene.scene.step()
    for role, where in resting(env)[0].items():
        np.testing.assert_allclose(where, at[role], atol=1e-3)


def test_the_seed_draws_and_the_number_overrides_it(build):
    env = build("Main-v3")
    drawn = []
    for seed in (3, 4, 3):
        env.reset(seed)
        drawn.append(env.unwrapped.running[0])
    assert drawn[0] == drawn[2] != drawn[1]
    env.reset(3, 12345)
    assert env.unwrapped.running[0] == env.unwrapped.configurations("train")[12345]
    env.reset(3)
    assert env.unwrapped.running[0] == drawn[0]


def test_an_episode_is_bit_equal_whatever_was_shown_before(build):
    def play():
        env.reset(5)
        for k in range(12):
            env.step(np.array([0.02, 0.0, -0.03, 0, 0, 0.1, 1 if k < 8 else -1], np.float32))
        return env.observe().privileged

    env = build("MultiCarrot-v1")
    first = play()
    for seed in (71, 72, 73):
        env.reset(seed)
        for _ in range(6):
            env.step(np.array([0.03, 0.01, -0.05, 0.2, 0, 0, -1], np.float32))
    assert np.array_equal(play(), first)


def test_only_what_is_shown_is_in_the_scene(build):
    env = build("Main-v3")
    for seed in range(3):
        env.reset(seed)
        names = [e.name for e in env.unwrapped.scene.sub_scenes[0].entities if "arena" not in e.name]
        shown = [name for name in names if name.startswith("scene-0_") and ("source" in name or "target" in name)]
        assert sorted(shown) == ["scene-0_source", "scene-0_target"]


def test_a_test_distractor_that_is_the_object_leaves_it_alone(build):
    env = build("MultiCarrot-v1", "test")
    numbers = env.unwrapped.configurations("test")
    per_extra = len(numbers) // 72
    alone = next(k * per_extra for k in range(72) if "extra" not in numbers[k * per_extra].things)
    for configuration_id in (0, alone):
        env.reset(0, configuration_id)
        assert env.observe().privileged.shape == (env.spec.privileged_dim,)
    assert resting(env)[0]["extra"][2] < 0
    env.step(IDLE)
    assert resting(env)[0]["extra"][2] == pytest.approx(-9.0)


def test_the_object_jumps_after_five_steps_and_only_where_it_should(build):
    for split, jumps in (("train", False), ("test", True)):
        env = build("PositionChangeTo-v1", split)
        env.reset(0, 40)
        start = resting(env)[0]["source"]
        for _ in range(4):
            env.step(IDLE)
        np.testing.assert_allclose(resting(env)[0]["source"], start, atol=2e-3)
        env.step(IDLE)
        now, c = resting(env)
        if not jumps:
            np.testing.assert_allclose(now["source"], start, atol=2e-3)
            continue
        assert np.linalg.norm(now["source"][:2] - c.jump.at[:2]) < 0.03
        env.step(IDLE)
        np.testing.assert_allclose(resting(env)[0]["source"], now["source"], atol=2e-3)


def test_a_grasp_is_latched_and_the_reward_is_its_increase(build):
    from rlft_envs.task import make_expert

    env = build("Single-v1", reward=RewardSettings("dense_difference", 1.0, 0.0))
    env.reset(1)
    expert, rewards, metrics = make_expert(env), [], []
    while (action := expert.act()) is not None:
        result = env.step(action)
        rewards.append(result.reward)
        metrics.append(result.metrics)
        if result.success:
            break
    grasped = [m["grasped_now"] for m in metrics]
    latched = [m["is_src_obj_grasped"] for m in metrics]
    assert latched == [float(any(grasped[: k + 1])) for k in range(len(grasped))]
    assert metrics[-1]["src_on_target"] == 1.0
    assert sum(rewards) == pytest.approx(1.0 + 0.1 + 0.1 * metrics[-1]["consecutive_grasp"])
    assert rewards[latched.index(1.0)] == pytest.approx(0.1)


def test_the_image_is_that_of_the_official_task_with_things_in_the_same_places():
    """The official PutCarrotOnPlateInScene shows the same carrot, plate, table and robot."""
    from rlft_envs.maniskill.env import ManiSkillEnv

    camera = (CameraSettings("3rd_view_camera", 120, 160),)
    ours = ManiSkillEnv(settings("Single-v1", cameras=camera, shader="default"))
    official = ManiSkillEnv(replace(ours.settings, env_id="PutCarrotOnPlateInScene-v1", make_kwargs={}))
    official.reset(0, 7)
    ours.reset(0, 7)
    theirs = official.unwrapped
    for role, name in (("source", theirs.source_obj_name), ("target", theirs.target_obj_name)):
        ours.unwrapped.objs[role].set_pose(theirs.objs[name].pose)
    a, b = (env.observe().images["3rd_view_camera"].astype(int) for env in (ours, official))
    different = np.abs(a - b).mean()
    ours.close()
    official.close()
    assert different < 0.05, f"{different} of 255"


def test_textures_change_the_foreground_or_everything():
    from rlft_envs.maniskill.env import ManiSkillEnv

    camera = (CameraSettings("3rd_view_camera", 120, 160),)
    images = {}
    for name, split in (("VisionTexture05-v1", "train"), ("VisionTexture05-v1", "test"), ("VisionWhole05-v1", "test")):
        env = ManiSkillEnv(settings(name, split, cameras=camera))
        env.reset(0, 0)
        images[name, split] = env.observe().images["3rd_view_camera"].astype(int)
        env.close()
    plain, box, whole = images.values()
    assert 0.02 < (np.abs(box - plain).max(axis=2) > 2).mean() < 0.4
    assert (np.abs(whole - plain).max(axis=2) > 2).mean() > 0.8


def test_gymnasium_makes_it_too():
    import gymnasium as gym

    import rlft_tasks.put_on_plate.scene  # noqa: F401

    assets_root()
    env = gym.make(f"{PREFIX}Main-v3", obs_mode="none", render_backend="none", reward_mode="none")
    env.reset(seed=1)
    first = env.unwrapped.running[0]
    env.reset()
    assert env.unwrapped.running[0] != first
    env.reset(seed=2, options={"obj_set": "test"})
    assert env.unwrapped.running[0].digits.object >= 16
    env.reset(seed=3)
    assert env.unwrapped.running[0].digits.object >= 16  # options stick
    env.close()
