"""SimplerEnv's WidowX tasks on the real simulator: language, numbered episodes, images, metrics, reward."""

from dataclasses import replace

import numpy as np
import pytest
from assets_at import assets_root
from vec_env_factories import WIDOWX

from rlft.types import CameraSettings, RewardSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.images import fit_image
from rlft_envs.simulator import build_single_env, make_vec_env

pytestmark = pytest.mark.simulator

TASKS = {
    "PutCarrotOnPlateInScene-v1": (24, "put carrot on plate"),
    "PutEggplantInBasketScene-v1": (64, "put eggplant into yellow basket"),
    "PutSpoonOnTableClothInScene-v1": (24, "put the spoon on the towel"),
    "StackGreenCubeOnYellowCubeBakedTexInScene-v1": (24, "stack the green block on the yellow block"),
}
CAMERA = CameraSettings("3rd_view_camera", 84, 112)
ALONE = {"num_envs": 1, "max_episode_steps": 60, "cameras": (CAMERA,), "shader": "default"}
ALONE["reward"] = RewardSettings("dense_difference", 1.0, 0.0)
DOWN = np.array([0, 0, -0.02, 0, 0, 0, -1], np.float32)


def settings(env_id, **changes):
    return replace(WIDOWX, env_id=env_id, **{**ALONE, "assets_root": str(assets_root()), **changes})


@pytest.fixture(scope="module")
def built():
    """Each task once; a first image costs seconds."""
    envs = {}

    def get(env_id):
        if env_id not in envs:
            envs[env_id] = build_single_env(settings(env_id))
        return envs[env_id]

    yield get
    for env in envs.values():
        env.close()


def arrays(env):
    row = env.observe()
    return [row.images[CAMERA.name], row.state, row.privileged]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("env_id", TASKS)
def test_task(built, env_id):
    env = built(env_id)
    env.reset(1, 0)
    count, text = TASKS[env_id]
    assert (env.spec.num_configurations, env.instruction) == (count, text)
    assert (env.spec.act_dim, env.spec.control_hz, env.spec.state_dim) == (7, 5.0, 8)
    result = env.step(DOWN)
    assert set(result.metrics) == {"is_src_obj_grasped", "consecutive_grasp", "src_on_target", "grasped_now"}
    assert result.reward == 0.0


@pytest.mark.parametrize("env_id", TASKS)
def test_the_past_does_not_reach_the_next_episode(built, env_id):
    """Upstream settles the objects with the robot where the last episode left it."""
    env = built(env_id)
    env.reset(5, 7)
    first = arrays(env)
    for _ in range(3):
        env.step(DOWN)
    later = arrays(env)
    assert not same(first, later)
    env.reset(6)
    for _ in range(8):
        env.step(3 * DOWN)
    env.reset(5, 7)
    assert same(arrays(env), first)
    for _ in range(3):
        env.step(DOWN)
    assert same(arrays(env), later)


def test_an_configuration_id_names_the_configuration_and_a_seed_draws_one(built):
    env = built("PutCarrotOnPlateInScene-v1")

    def start(seed, configuration_id=None):
        env.reset(seed, configuration_id)
        return env.observe().privileged.tobytes()

    assert start(1, 0) == start(2, 0) != start(1, 13)
    assert start(3) == start(3)
    assert len({start(seed) for seed in range(8)}) > 3


def test_a_smaller_camera_sees_the_same(built):
    small = built("PutCarrotOnPlateInScene-v1")
    big = build_single_env(settings("PutCarrotOnPlateInScene-v1", cameras=(CameraSettings(CAMERA.name, 480, 640),)))
    small.reset(1, 3)
    big.reset(1, 3)
    image = fit_image(big.observe().images[CAMERA.name], CAMERA.height, CAMERA.width).astype(float)
    big.close()
    seen = small.observe().images[CAMERA.name].astype(float)
    difference = np.abs(image - seen).mean()
    shifted = np.abs(np.roll(image, 3, axis=1) - seen)[:, 3:].mean()
    assert difference < 1.5  # edges of the rendered part are not smoothed
    assert shifted > 3 * difference


def test_the_photograph_is_shown_where_nothing_is_rendered(built):
    env = built("PutCarrotOnPlateInScene-v1")
    env.reset(1, 3)
    folder = assets_root() / "maniskill/data/tasks/bridge_v2_real2sim_dataset/real_inpainting"
    photograph = fit_image(folder / "bridge_real_eval_1.png", CAMERA.height, CAMERA.width)
    shown = (env.observe().images[CAMERA.name] == photograph).all(axis=-1)
    assert 0.8 < shown.mean() < 0.98
    assert env.human_view().shape == (CAMERA.height, CAMERA.width, 3)


def test_environments_of_one_process_keep_their_own_images(built):
    """Upstream keeps the photographs on the class: the second environment would resize those of the first."""
    env = built("PutCarrotOnPlateInScene-v1")
    env.reset(1, 3)
    before = env.observe().images[CAMERA.name]
    other = build_single_env(settings("PutEggplantInBasketScene-v1", cameras=(CameraSettings(CAMERA.name, 48, 64),)))
    other.reset(1, 3)
    assert other.observe().images[CAMERA.name].shape == (48, 64, 3)
    other.close()
    assert np.array_equal(env.observe().images[CAMERA.name], before)


def test_an_original_mesh_is_shown_though_a_stand_in_lies_beside_it(monkeypatch, tmp_path):
    from types import SimpleNamespace

    from mani_skill.utils.registration import REGISTERED_ENVS

    from rlft_tasks.widowx import scene

    shown = []
    nothing = SimpleNamespace(
        add_multiple_convex_collisions_from_file=lambda *args, **kwargs: None,
        add_visual_from_file=lambda path, **kwargs: shown.append(path.rsplit("/", 1)[1]),
        build=lambda name: None,
    )
    env_id = "PutEggplantInBasketScene-v1"
    task, _ = scene.adapt(REGISTERED_ENVS[env_id].cls, settings(env_id))
    env = object.__new__(task)
    env.scene, env.model_db = SimpleNamespace(create_actor_builder=lambda: nothing), {"eggplant": {}}
    monkeypatch.setattr(scene, "MODELS", tmp_path)
    (tmp_path / "eggplant").mkdir()
    for name in ("collision.obj", "textured.obj", "textured.dae"):
        (tmp_path / "eggplant" / name).write_text("")
        env._build_actor_helper("eggplant")
    assert shown == ["collision.obj", "textured.obj", "textured.dae"]


def test_gpu_physics_is_refused():
    with pytest.raises(EnvSetupError, match=r"sim\.backend=cpu"):
        make_vec_env(settings("PutCarrotOnPlateInScene-v1", sim_backend="gpu", sim_device="cuda:0"))
