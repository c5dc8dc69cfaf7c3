"""Numbers mean the published configurations: by hand, and against numbers computed once with RL4VLA's own code."""

import json
from itertools import product
from math import hypot, radians
from pathlib import Path

import numpy as np
import pytest
from assets_at import assets_root

from rlft_envs.assets import visual_mesh
from rlft_envs.errors import EnvSetupError
from rlft_tasks.put_on_plate.configurations import Configurations, Numbering
from rlft_tasks.put_on_plate.layouts import layout, qpos_offsets
from rlft_tasks.put_on_plate.variants import PREFIX, SPLITS, TEMPLATES, VARIANTS

PUBLISHED = json.loads((Path(__file__).parent / "put_on_plate_numbers.json").read_text())
"""``id split`` -> count; rows of number, object, plate, table, extra (-1: none), yaw (degrees), places, joint offset.

Computed with gen-robot/RL4VLA's put_on_in_scene_multi.py, whose code is not here.
"""


def test_the_table_has_the_published_ids():
    assert {key.split()[0] for key in PUBLISHED} == set(VARIANTS)
    assert len(VARIANTS) == 17


@pytest.mark.parametrize("key", PUBLISHED)
def test_numbers_mean_what_they_mean_in_the_published_code(key):
    env_id, split = key.split()
    numbers = Numbering(env_id, split)
    assert len(numbers) == PUBLISHED[key]["count"]
    for i, thing, plate, table, extra, yaw, places, *qpos in PUBLISHED[key]["rows"]:
        d = numbers[i]
        assert (d.object, d.plate, d.table) == (thing, plate, table)
        assert extra == -1 or d.extra == extra
        where = np.column_stack([numbers.layout.xy[d.position], numbers.layout.heights])
        np.testing.assert_allclose(where.ravel(), places, atol=6e-5)
        assert numbers.layout.yaws[d.yaw] == pytest.approx(radians(yaw), abs=1e-5)
        if qpos:
            np.testing.assert_allclose(qpos_offsets()[d.extra], qpos[0], atol=1e-9)


def test_counts_by_hand():
    """784 pairs x 4 yaws, times what the description says of each split."""
    grid = [0.03 * i for i in range(6)]
    points = list(product(grid, grid))
    pairs = sum(hypot(a[0] - b[0], a[1] - b[1]) > 0.07 for a in points for b in points)
    assert pairs == 784
    count = {split: len(Numbering(f"{PREFIX}Main-v3", split)) for split in SPLITS}
    assert count == {"train": 16 * 16 * pairs * 4, "test": 9 * 5 * pairs * 4, "all": 25 * 21 * pairs * 4}
    assert (count["train"], count["test"]) == (802_816, 141_120)
    assert [len(Numbering(f"{PREFIX}Single-v1", split)) for split in SPLITS] == [3136] * 3
    assert len(Numbering(f"{PREFIX}Instruct-v1", "test")) == 16 * 16 * 16 * pairs * 4


def test_yaw_turns_fastest_then_position_table_object():
    numbers = Numbering(f"{PREFIX}Main-v3", "test")
    assert list(numbers.sizes.items()) == [("object", 9), ("plate", 1), ("table", 5), ("position", 784), ("yaw", 4)]
    i = (((2 * 1 + 0) * 5 + 3) * 784 + 17) * 4 + 1
    d = numbers[i]
    assert (d.object, d.plate, d.table, d.position, d.yaw) == (16 + 2, 0, 16 + 3, 17, 1)
    assert numbers[i + 1].yaw == 2
    assert numbers[i + 4].position == 18


def test_the_first_pair_of_places():
    """From the corner of the grid, the nearest place further than 0.07 m in scan order is 0.09 m along y."""
    xy = layout("pairs").xy[0]
    np.testing.assert_allclose(xy, [[-0.235, -0.075], [-0.235, 0.015]], atol=1e-12)


def test_places_keep_their_distances():
    apart = {name: layout(name).xy for name in ("two_objects", "two_plates")}
    for name, (a, b) in {"two_objects": (0, 2), "two_plates": (1, 2)}.items():
        xy = apart[name]
        for i, j in ((0, 1), (0, 2), (1, 2)):
            d = np.linalg.norm(xy[:, i] - xy[:, j], axis=1)
            assert d.min() > (0.15 - 1e-9 if (i, j) == (a, b) else 0.07)


def test_a_distractor_is_another_thing():
    for env_id in (f"{PREFIX}MultiCarrot-v1", f"{PREFIX}MultiPlate-v1"):
        numbers = Numbering(env_id, "train")
        step = len(numbers) // 997
        for i in range(0, len(numbers), step):
            d = numbers[i]
            assert d.extra != (d.object if "Carrot" in env_id else d.plate)


def test_one_test_distractor_in_eight_is_the_object_itself_as_published():
    numbers = Numbering(f"{PREFIX}MultiCarrot-v1", "test")
    per_extra = len(numbers) // (9 * 8)
    itself = [numbers[k * per_extra].object == numbers[k * per_extra].extra for k in range(72)]
    assert sum(itself) == 9
    configurations = Configurations(numbers.env_id, "test", assets_root())
    c = configurations[itself.index(True) * per_extra]
    assert set(c.things) == {"source", "target"}
    assert c.things["source"].at[2] == 1.0  # it falls from where the distractor would
    assert "beside nothing" in configurations.labels(itself.index(True) * per_extra)["variant"]


def test_what_a_number_shows():
    c = Configurations(f"{PREFIX}Instruct-v1", "test", assets_root())
    per_phrase = 16 * 784 * 4
    shown = c[3 * 16 * per_phrase + 4 * per_phrase]  # the fourth object, the fifth unseen phrasing
    assert shown.instruction == TEMPLATES[5].format(object="plastic bottle", plate="plate")
    assert c.labels(3 * 16 * per_phrase + 4 * per_phrase) == {
        "object": "plastic bottle",
        "plate": "plate",
        "table": "001_table_simpler",
        "variant": "Instruct, phrasing 5",
    }
    texture = Configurations(f"{PREFIX}VisionTexture03-v1", "test", assets_root())[0].texture
    assert texture is not None
    assert texture.key.startswith("002_")
    moved = Configurations(f"{PREFIX}PositionChangeTo-v1", "test", assets_root())[0]
    assert moved.jump is not None
    assert Configurations(f"{PREFIX}PositionChangeTo-v1", "train", assets_root())[0].jump is None


def test_every_variant_lists_what_it_can_show():
    for env_id, split in product(VARIANTS, SPLITS):
        c = Configurations(env_id, split, assets_root())
        keys = {model.key for models in c.models() for model in models}
        for i in np.random.default_rng(0).integers(len(c), size=40):
            shown = c[int(i)]
            assert {thing.model.key for thing in shown.things.values()} <= keys
            assert set(c.labels(int(i))) == {"object", "plate", "table", "variant"}


def test_a_missing_visual_mesh_is_replaced_by_its_shape(tmp_path):
    model = Configurations(f"{PREFIX}Single-v1", "train", assets_root())[0].things["source"].model
    assert visual_mesh(model.folder).name == "textured.dae"
    (tmp_path / "collision.obj").write_text("")
    assert visual_mesh(tmp_path) == tmp_path / "collision.obj"
    for better in ("textured.obj", "textured.glb", "textured.dae"):  # no original is an .obj
        (tmp_path / better).write_text("")
        assert visual_mesh(tmp_path).name == better


def test_wrong_names_and_numbers_are_refused(tmp_path):
    with pytest.raises(EnvSetupError, match=r"Main-v3"):
        Numbering(f"{PREFIX}Main-v4", "train")
    with pytest.raises(EnvSetupError, match="train, test, all"):
        Numbering(f"{PREFIX}Main-v3", "val")
    with pytest.raises(IndexError, match=r"0\.\.3135"):
        Numbering(f"{PREFIX}Single-v1", "train")[3136]
    with pytest.raises(EnvSetupError, match="rlft assets --accept-licences"):
        Configurations(f"{PREFIX}Single-v1", "train", tmp_path)
