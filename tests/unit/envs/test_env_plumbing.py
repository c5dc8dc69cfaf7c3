"""Settings, checks, memory layout and messages: what the implementations share."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from rlft.assets.root import COMMAND
from rlft.types import CameraSettings, EnvSettings, EnvSpec, RewardSettings
from rlft_envs.arrays import ObservationArrays, Outcomes
from rlft_envs.assets import download_command
from rlft_envs.checks import check_actions, check_reset
from rlft_envs.errors import EnvSetupError
from rlft_envs.make import make_vec_env
from rlft_envs.maniskill.variations import Variation
from rlft_envs.maniskill.vulkan import check_vulkan
from rlft_envs.single import ObservationRow
from rlft_envs.trees import clone_tree, put_rows, take_rows
from rlft_envs.workers import protocol

SETTINGS = EnvSettings(
    simulator="toy",
    env_id="ToyReach-v0",
    num_envs=3,
    max_episode_steps=10,
    control_mode="pd_ee_delta_pos",
    cameras=(
        CameraSettings("a", 5, 7, fov=0.3, eye=(1.0, 2.0, 3.0), target=(0.0, 0.0, 0.0)),
        CameraSettings("b", 4, 4),
    ),
    privileged=True,
    reward=RewardSettings("dense", 0.3, 2.0),
    make_kwargs={"variation": {"goal_offset": [0.1, 0.2]}},
)
SPEC = EnvSpec("x", 3, (-1.0, -1.0), (1.0, 1.0), 4, SETTINGS.cameras, "c", 20.0, 10, privileged_dim=6)


def test_settings_and_spec_survive_the_wire():
    wire = json.dumps({"settings": protocol.pack_settings(SETTINGS), "spec": protocol.pack_spec(SPEC)})
    message = json.loads(wire)
    assert protocol.unpack_settings(message["settings"]) == SETTINGS
    assert protocol.unpack_spec(message["spec"]) == SPEC


def test_outcomes_survive_the_wire_to_the_last_bit():
    rng = np.random.default_rng(0)
    sent = Outcomes.fresh(3)
    sent.begin_chunk(5)
    sent.rewards[:] = rng.normal(size=(3, 5)).astype(np.float32)
    sent.n_executed[:] = [5, 2, 0]
    sent.truncated[1] = True
    sent.record(1, {"distance": 0.1})
    taken = Outcomes.fresh(4)
    taken.begin_chunk(5)
    taken.success[3] = True
    taken.take(json.loads(json.dumps(sent.to_json())), slots=[1, 0], at=[2, 0])
    assert np.array_equal(taken.rewards[[2, 0]], sent.rewards[[1, 0]])
    assert taken.n_executed.tolist() == [5, 0, 2, 0]
    assert taken.ended.tolist() == [False, False, True, False]
    assert taken.success.tolist() == [False, False, False, True]
    assert taken.metrics["distance"][2] == np.float32(0.1)


def test_arrays_over_one_memory_do_not_overlap_and_are_shared():
    memory = bytearray(ObservationArrays.nbytes(SPEC, 3))
    mine, theirs = (ObservationArrays.over(memory, SPEC, 3) for _ in range(2))
    rows = []
    for slot in range(3):
        images = {c.name: np.full((c.height, c.width, 3), 50 * slot + i, np.uint8) for i, c in enumerate(SPEC.cameras)}
        rows.append(ObservationRow(images, np.full(4, slot + 0.5, np.float32), np.full(6, slot + 0.25, np.float32)))
        mine.write(slot, rows[slot])
    obs = theirs.observation([2, 0], ["go", "stay", "come"])
    for k, slot in enumerate((2, 0)):
        assert all(np.array_equal(obs.images[name][k], image) for name, image in rows[slot].images.items())
        assert np.array_equal(obs.state[k], rows[slot].state)
        assert np.array_equal(obs.privileged[k], rows[slot].privileged)
    assert obs.task == ["come", "go"]
    mine.state[:] = 0
    assert obs.state.any(), "an observation is a copy"


def test_numbers_that_are_not_finite_are_not_stored():
    arrays = ObservationArrays.private(replace(SPEC, cameras=()), 1)
    row = ObservationRow({}, np.array([1, np.nan, np.inf, 2], np.float32), np.zeros(6, np.float32))
    assert not row.is_finite()
    arrays.write(0, row)
    assert arrays.state.tolist() == [[1, 0, 0, 2]]


def test_checks_name_what_is_wrong():
    actions = np.zeros((3, 4, 2))
    assert check_actions(actions, SPEC).dtype == np.float32
    actions[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="environment 1, step 2 of the chunk, dimension 0 is nan"):
        check_actions(actions, SPEC)
    with pytest.raises(ValueError, match="seeds"):
        check_reset([0], [-1], None, SPEC)
    with pytest.raises(ValueError, match="no numbered configurations"):
        check_reset([0], [1], [5], SPEC)
    numbered = replace(SPEC, num_episode_ids=6)
    assert check_reset([0, 2], [1, 2], [5, 0], numbered) == [5, 0]
    assert check_reset([0, 2], [1, 2], None, numbered) == [None, None]
    with pytest.raises(ValueError, match=r"episode_ids \[6\] do not exist; x has 0\.\.5"):
        check_reset([0, 2], [1, 2], [5, 6], numbered)
    with pytest.raises(ValueError, match="one per environment"):
        check_reset([0, 2], [1, 2], [5], numbered)


def test_trees():
    tree = {"a": {"b": np.arange(6.0).reshape(3, 2)}}

    class Array(np.ndarray):
        def clone(self):
            return self.copy()

    tree["a"]["b"] = tree["a"]["b"].view(Array)
    copy = clone_tree(tree)
    put_rows(copy, take_rows(tree, [0]), [2])
    assert copy["a"]["b"][2].tolist() == [0.0, 1.0]
    assert tree["a"]["b"][2].tolist() == [4.0, 5.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"simulator": "maniskil"}, "did you mean maniskill"),
        ({"reward": RewardSettings("dens")}, "did you mean dense"),
        ({"num_envs": 0}, "at least 1"),
        ({"cameras": (CameraSettings("a", 8, 8), CameraSettings("a", 8, 8))}, "repeat"),
        ({"sim_backend": "gpu"}, "no GPU physics"),
    ],
)
def test_make_refuses_in_words(changes, words):
    with pytest.raises(EnvSetupError, match=words):
        make_vec_env(replace(SETTINGS, **changes))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"object_regoin": [[0, 1], [0, 1]]}, "did you mean object_region"),
        ({"object_region": [0, 1]}, "shape"),
        ({"object_region": [[1, 0], [0, 1]]}, "low <= high"),
        ({"object_mass": -1}, "positive"),
        ({"goal_offset": [float("nan"), 0.0]}, "finite"),
        ({"object_yaw": "left"}, "numbers"),
    ],
)
def test_a_wrong_variation_is_refused(values, words):
    with pytest.raises(EnvSetupError, match=words):
        Variation.parse(values)


def test_no_variation():
    assert Variation.parse(None) is None
    assert Variation.parse({}) is None
    assert Variation.parse({"goal_offset": [0.1, 0]}) == Variation(goal_offset=(0.1, 0.0))


def test_a_missing_vulkan_driver_is_found_before_anything_is_imported(monkeypatch, tmp_path):
    monkeypatch.setenv("VK_DRIVER_FILES", "")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "none.json"))
    imported = set(sys.modules)
    with pytest.raises(EnvSetupError, match=r"VK_ICD_FILENAMES=.*mesa-vulkan-drivers"):
        make_vec_env(replace(SETTINGS, simulator="maniskill"))
    assert not {"sapien", "mani_skill"} & (set(sys.modules) - imported)
    (tmp_path / "none.json").touch()
    check_vulkan()


def test_importing_and_making_a_toy_imports_no_simulator():
    code = (
        "import sys, rlft, rlft_envs, rlft_envs.make, rlft_envs.workers.pool, rlft_envs.toy\n"
        "import rlft_envs.maniskill.variations\n"
        "from rlft.types import EnvSettings\n"
        "rlft_envs.make.make_vec_env(EnvSettings('toy', 'ToyReach-v0', 1, 5, 'pd_ee_delta_pos'))\n"
        "heavy = {'torch', 'mani_skill', 'sapien', 'lerobot', 'transformers', 'wandb', 'gymnasium'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_download_goes_where_the_assets_are_looked_for(tmp_path):
    from rlft_tasks.put_on_plate.library import load_library

    assert download_command(None) == COMMAND
    with pytest.raises(EnvSetupError, match=re.escape(f"--accept-licences --root '{tmp_path / 'two words'}'")):
        load_library(tmp_path / "two words")
