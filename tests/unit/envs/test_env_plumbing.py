"""Settings, checks and memory layout: what the implementations share."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from rlft.errors import command
from rlft.types import CameraSettings, EnvSettings, EnvSpec, RewardSettings, map_rows
from rlft_envs.arrays import FLAGS, MAX_METRICS, shared_step
from rlft_envs.assets import download_command
from rlft_envs.checks import check_actions, check_reset
from rlft_envs.errors import EnvSetupError
from rlft_envs.maniskill.devices import check_vulkan
from rlft_envs.maniskill.variations import Variation
from rlft_envs.simulator import make_vec_env
from rlft_envs.single import ObservationRow
from rlft_envs.workers.link import worker_environment

CAMERAS = CameraSettings("a", 5, 7), CameraSettings("b", 4, 4)
SETTINGS = EnvSettings("toy", "ToyReach-v0", 3, 10, "pd_ee_delta_pos", CAMERAS, privileged=True)
SPEC = EnvSpec("x", 3, (-1.0, -1.0), (1.0, 1.0), 4, CAMERAS, "c", 20.0, 10, privileged_dim=6)


def test_what_a_worker_writes_is_what_the_pool_reads_whatever_the_chunk():
    descriptor = os.memfd_create("test")
    mine = shared_step(descriptor, SPEC, 5)
    part = map_rows(lambda array: array[1:3], shared_step(descriptor, SPEC, 5))
    rows = []
    for slot in range(2):
        images = {c.name: np.full((c.height, c.width, 3), 50 * slot + i, np.uint8) for i, c in enumerate(SPEC.cameras)}
        rows.append(ObservationRow(images, np.full(4, slot + 0.5, np.float32), np.full(6, slot + 0.25, np.float32)))
        part.write(slot, rows[slot])
        part.write_metrics(slot, {"distance": 0.1 + slot})
    part.n_executed[:] = 4, 5
    for number, name in enumerate(FLAGS):
        getattr(part, name)[number % 2] = True
    obs = mine.copy().obs
    for k, row in enumerate(rows, start=1):
        assert all(np.array_equal(obs.images[name][k], image) for name, image in row.images.items())
        assert np.array_equal(obs.state[k], row.state)
        assert np.array_equal(obs.privileged[k], row.privileged)
    # A longer chunk grows the memory, and leaves where it is what was there.
    longer = shared_step(descriptor, SPEC, 5000)
    longer.actions[:], longer.rewards[:], part.obs.state[:] = 1.0, 2.0, 7.0
    longer.name_metrics(part.metrics)
    step = longer.copy()
    os.close(descriptor)
    assert step.n_executed.tolist() == [0, 4, 5]
    assert [getattr(step, name).tolist() for name in FLAGS] == [[False, n % 2 == 0, n % 2 == 1] for n in range(5)]
    assert np.array_equal(step.metrics["distance"], np.array([0.0, 0.1, 1.1], np.float32))
    assert step.obs.state[:, 0].tolist() == [0.0, 7.0, 7.0]
    assert mine.rewards.shape == (3, 5)
    longer.rewards[:] = 0.0
    part.clear([0, 1])
    assert (step.rewards == 2.0).all()
    assert step.ended.tolist() == [False, True, True], "what was handed out is a copy"
    assert mine.ended.tolist() == [False] * 3


def test_metrics_that_change_are_named():
    arrays = arrays_of(SPEC)
    arrays.write_metrics(0, {"distance": 1.0, "angle": 2.0})
    with pytest.raises(EnvSetupError, match=r"were \['distance', 'angle'\] and are \['distance'\] now"):
        arrays.write_metrics(1, {"distance": 1.0})
    with pytest.raises(EnvSetupError, match=f"at most {MAX_METRICS} can be kept"):
        arrays_of(SPEC).write_metrics(0, dict.fromkeys(map(str, range(MAX_METRICS + 1)), 0.0))


def test_a_worker_finds_what_its_parent_finds(tmp_path, monkeypatch):
    (tmp_path / "a_users_package.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "import a_users_package, rlft_tasks, sys; assert '' not in sys.path"
    subprocess.run([sys.executable, "-c", code], env=worker_environment(), cwd="/", check=True)


def arrays_of(spec):
    return shared_step(os.memfd_create("test"), spec, 1)


def test_numbers_that_are_not_finite_are_not_stored():
    arrays = arrays_of(replace(SPEC, cameras=(), num_envs=1))
    row = ObservationRow({}, np.array([1, np.nan, np.inf, 2], np.float32), np.zeros(6, np.float32))
    assert not row.is_finite()
    arrays.write(0, row)
    assert arrays.obs.state.tolist() == [[1, 0, 0, 2]]


def test_checks_name_what_is_wrong():
    actions = np.zeros((3, 4, 2))
    check_actions(actions, SPEC)
    actions[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="environment 1, step 2 of the chunk, dimension 0 is nan"):
        check_actions(actions, SPEC)
    with pytest.raises(ValueError, match="seeds"):
        check_reset([0], [-1], None, SPEC)
    with pytest.raises(ValueError, match="no numbered configurations"):
        check_reset([0], [1], [5], SPEC)
    numbered = replace(SPEC, num_configurations=6)
    assert check_reset([0, 2], [1, 2], [5, 0], numbered) == [5, 0]
    assert check_reset([0, 2], [1, 2], None, numbered) == [None, None]
    with pytest.raises(ValueError, match=r"configuration_ids \[6\] do not exist; x has 0\.\.5"):
        check_reset([0, 2], [1, 2], [5, 6], numbered)
    with pytest.raises(ValueError, match="each environment needs one"):
        check_reset([0, 2], [1, 2], [5], numbered)


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
        ({"object_region": [0, 1]}, r"variation\.object_region\.0 = 0: Input should be a valid array"),
        ({"object_region": [[0, 1, 2], [0, 1]]}, r"object_region\.0 = \[0, 1, 2\]: .* at most 2 items"),
        ({"object_region": [[1, 0], [0, 1]]}, "low <= high"),
        ({"object_mass": -1}, "greater than 0"),
        ({"goal_offset": [float("nan"), 0.0]}, "finite"),
        ({"object_yaw": "left"}, "object_yaw = 'left': Input should be a valid array"),
        ({"goal_offset": [1.0]}, "at least 2 items"),
    ],
)
def test_a_wrong_variation_is_refused(values, words):
    with pytest.raises(EnvSetupError, match=words):
        Variation.parse(values)


def test_no_variation():
    assert Variation.parse(None) is Variation.parse({}) is None
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
        "import sys, rlft, rlft_envs, rlft_envs.simulator, rlft_envs.workers.pool, rlft_envs.toy\n"
        "import rlft_envs.maniskill.variations\n"
        "from rlft.types import EnvSettings\n"
        "rlft_envs.simulator.make_vec_env(EnvSettings('toy', 'ToyReach-v0', 1, 5, 'pd_ee_delta_pos'))\n"
        "heavy = {'torch', 'mani_skill', 'sapien', 'lerobot', 'transformers', 'wandb', 'gymnasium'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_download_goes_where_the_assets_are_looked_for(tmp_path):
    from rlft_tasks.put_on_plate.library import load_library

    assert download_command(None) == command("assets", "--accept-licences")
    with pytest.raises(EnvSetupError, match=re.escape(f"--accept-licences --root '{tmp_path / 'two words'}'")):
        load_library(tmp_path / "two words")
