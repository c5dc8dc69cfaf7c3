"""Background swaps on rendered images of the family, where segmentation says what is foreground."""

from dataclasses import replace

import pytest
import torch
from assets_at import assets_root
from vec_env_factories import PUT_ON_PLATE

from rlft.config.load import load
from rlft.data.randomize.effects import find_background
from rlft.data.randomize.randomizer import ImageRandomizer, Images
from rlft.types import CameraSettings, Observation

pytestmark = pytest.mark.simulator

CPU = torch.device("cpu")
CAMERA = "3rd_view_camera"
EPISODES = 8


@pytest.fixture(scope="module")
def scene() -> tuple[torch.Tensor, torch.Tensor, list[str], list[str]]:
    """uint8 ``[n, 3, 168, 224]``, where robot and objects are (bool ``[n, 1, 168, 224]``), tables, instructions."""
    from rlft_envs.maniskill.env import ManiSkillEnv

    base = replace(PUT_ON_PLATE, env_id="PutOnPlateInScene25Main-v3", num_envs=1, assets_root=str(assets_root()))
    env = ManiSkillEnv(replace(base, cameras=(CameraSettings(CAMERA, 168, 224),), make_kwargs={"obj_set": "train"}))
    task = env.unwrapped
    compose, seen = task.compose_image, {}

    def remember(camera: str, rgb: torch.Tensor, segmentation: torch.Tensor) -> torch.Tensor:
        seen["foreground"] = (segmentation != 0) & (segmentation != task._table._objs[0].per_scene_id)
        return compose(camera, rgb, segmentation)

    task.compose_image = remember
    images, foregrounds, tables, texts = [], [], [], []
    for i in range(EPISODES):
        env.reset(0, 2 * i * (16 * 3136) + (2 * i + 1) * 3136 + 391 * i)  # another object, table and layout each
        images.append(torch.as_tensor(env.observe().images[CAMERA]))
        foregrounds.append(seen["foreground"])
        tables.append(task.running[0].table.key)
        texts.append(env.instruction)
    env.close()
    return torch.stack(images).movedim(-1, 1).contiguous(), torch.stack(foregrounds), tables, texts


@pytest.fixture(scope="module")
def known() -> Images:
    return Images("known", assets_root() / "put_on_plate" / "more_table" / "imgs", ["*"], CPU)


def test_the_old_table_is_found_to_the_pixel_and_robot_and_objects_stay(scene, known):
    frames, foreground, tables, texts = scene
    assert len(set(tables)) == len(set(texts)) == EPISODES
    found = find_background(frames, known.at(168, 224), 16)
    assert [known.names[i] for i in found.best.tolist()] == tables
    assert found.tolerance.tolist() == [2] * EPISODES  # nothing was compressed
    eaten = (found.mask & foreground).flatten(1).sum(1) / foreground.flatten(1).sum(1)
    kept = (~found.mask & ~foreground).flatten(1).sum(1) / (~foreground).flatten(1).sum(1)
    assert float(eaten.max()) < 0.025  # the outermost pixels: the majority rounds corners
    assert float(kept.max()) < 0.005


def test_put_on_plates_own_settings_swap_every_rollout_image(scene):
    frames, foreground, _, texts = scene
    cfg = load("train_rl", ["task=put_on_plate_main", "randomization=put_on_plate"]).domain_randomization
    randomizer = ImageRandomizer(cfg, seed=0, purpose="test", device=CPU, assets=assets_root())
    obs = Observation({CAMERA: frames.movedim(1, -1)}, torch.zeros(EPISODES, 1), texts)
    out = randomizer(obs, [(0, i, 0) for i in range(EPISODES)])
    scalars = randomizer.scalars()
    assert scalars["randomization/overlay_missed"] == 0.0
    assert scalars["randomization/overlay_pixels"] == pytest.approx(float((~foreground).float().mean()), abs=0.01)
    alone = randomizer(replace(obs, images={CAMERA: obs.images[CAMERA][3:4]}, task=texts[3:4]), [(0, 3, 0)])
    assert torch.equal(alone.images[CAMERA][0], out.images[CAMERA][3])
