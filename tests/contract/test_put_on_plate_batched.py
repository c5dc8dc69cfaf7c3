"""PutOnPlateInScene25's bookkeeping for N environments, on a scene whose poses and forces are scripted."""

import numpy as np
import pytest
import torch
from assets_at import assets_root
from scripted_scene import scripted

pytestmark = pytest.mark.simulator  # it imports ManiSkill

PREFIX = "PutOnPlateInScene25"


def test_a_partial_reset_writes_the_rows_of_its_environments_only():
    scene = scripted(f"{PREFIX}MultiCarrot-v1", 4, assets_root())
    scene.start([0, 1, 2, 3], [11, 12, 13, 14], numbers=[5, 70_000, 9_000_000, 123_456])
    before = scene.rows()
    scene.start([2, 0], [21, 22], numbers=[8_000_000, 44])
    after = scene.rows()
    for name in before:
        for i in (1, 3):
            assert np.array_equal(before[name][i], after[name][i]), name
    assert not np.array_equal(before["poses"][2], after["poses"][2])
    assert not np.array_equal(before["source_size"][0], after["source_size"][0])
    numbers = scene.env.configurations("train")
    assert scene.env.running[2] == numbers[8_000_000]
    assert scene.env.running[0] == numbers[44]
    assert scene.env.get_language_instruction()[2] == numbers[8_000_000].instruction
    for i in (0, 2):
        np.testing.assert_allclose(scene.actor_pose("source", i)[:2], scene.env.running[i].object_at[:2], atol=0.06)


def test_each_row_is_what_one_environment_alone_would_have():
    name, seeds, numbers = f"{PREFIX}EEPose-v1", [1, 2, 3], [17, 500_000_000, 9_999_999_999]
    together = scripted(name, 3, assets_root(), "test")
    together.start([2, 0, 1], [seeds[2], seeds[0], seeds[1]], [numbers[2], numbers[0], numbers[1]])
    for i in range(3):
        alone = scripted(name, 1, assets_root(), "test")
        alone.start([0], [seeds[i]], [numbers[i]])
        for key, rows in alone.rows().items():
            assert np.array_equal(rows[0], together.rows()[key][i]), key


def test_draws_follow_the_seed_into_any_row():
    scene = scripted(f"{PREFIX}Main-v3", 3, assets_root())
    scene.start([1], [77])
    drawn = scene.env.running[1]
    scene.start([2], [77])
    scene.start([0], [78])
    assert scene.env.running[2] == drawn != scene.env.running[0]


def test_success_and_grasps_are_read_from_each_environments_own_actors():
    scene = scripted(f"{PREFIX}Main-v3", 3, assets_root())
    one_object = 16 * 784 * 4
    scene.start([0, 1, 2], [0, 0, 0], [0, 3 * one_object, 3 * one_object])
    keys = [c.object.key for c in scene.env.running]
    plate = scene.env.running[0].plate.key
    scene.step()
    assert not scene.env.evaluate()["success"].any()
    for i in (0, 2):
        scene.put_on(i)
    scene.forces[keys[0], plate] = torch.tensor([1.0, 1.0, 1.0])  # that object is the source in environment 0 alone
    scene.forces[keys[2], plate] = torch.tensor([1.0, 0.0, 1.0])
    scene.held[keys[2]] = torch.tensor([True, True, False])
    scene.step()
    info = scene.env.evaluate()
    assert info["success"].tolist() == [True, False, True]
    assert info["grasped_now"].tolist() == [False, True, False]
    assert info["is_src_obj_grasped"].tolist() == [False, True, False]
    scene.start([1], [0], [3 * one_object + 4])
    info = scene.env.evaluate()
    assert info["is_src_obj_grasped"].tolist() == [False, False, False]
    assert info["src_ever_on_target"].tolist() == info["success"].tolist() == [True, False, True]


def test_contacts_are_not_carried_over_a_reset():
    """A batched simulation reports those of its last step until the next one, though the arm is home and empty."""
    scene = scripted(f"{PREFIX}Single-v1", 2, assets_root())
    scene.start([0, 1], [0, 0], [0, 0])
    key, plate = scene.env.running[0].object.key, scene.env.running[0].plate.key
    scene.held[key], scene.forces[key, plate] = torch.tensor([True, True]), torch.tensor([1.0, 1.0])
    for i in (0, 1):
        scene.put_on(i)
    scene.step()
    assert scene.env.evaluate()["is_src_obj_grasped"].tolist() == [True, True]
    scene.start([1], [0], [4])
    scene.put_on(1)
    info = scene.env.evaluate()
    assert info["grasped_now"].tolist() == info["success"].tolist() == [True, False]
    assert info["is_src_obj_grasped"].tolist() == info["src_ever_on_target"].tolist() == [True, False]
    scene.step()
    assert scene.env.evaluate()["is_src_obj_grasped"].tolist() == [True, True]


def test_jumps_happen_in_the_environments_whose_fifth_step_it_is():
    scene = scripted(f"{PREFIX}PositionChangeTo-v1", 2, assets_root(), "test")
    scene.start([0, 1], [0, 0], [40, 4_000])
    for _ in range(2):
        scene.step()
    scene.start([1], [0], [8_000])
    at = [scene.actor_pose("source", i) for i in range(2)]
    for _ in range(3):
        scene.step()
    np.testing.assert_allclose(scene.actor_pose("source", 0)[:2], scene.env.running[0].moves_to[:2], atol=0.03)
    assert np.array_equal(scene.actor_pose("source", 1), at[1])
    for _ in range(2):
        scene.step()
    np.testing.assert_allclose(scene.actor_pose("source", 1)[:2], scene.env.running[1].moves_to[:2], atol=0.03)


def test_a_jump_undoes_nothing_that_moved_in_the_same_step():
    """The buffer that a jump is written into holds the poses from before the step, until they are fetched."""
    scene = scripted(f"{PREFIX}PositionChangeTo-v1", 2, assets_root(), "test")
    scene.start([0, 1], [0, 0], [40, 4_000])
    for _ in range(2):
        scene.step()
    scene.start([1], [0], [8_000])
    x = scene.actor_pose("source", 1)[0], scene.actor_pose("target", 0)[0]
    for _ in range(3):
        scene.step(drift=0.01)  # the last is environment 0's fifth
    assert scene.actor_pose("source", 0)[0] == pytest.approx(scene.env.running[0].moves_to[0], abs=0.03)
    assert scene.actor_pose("source", 1)[0] == pytest.approx(x[0] + 0.03, abs=1e-6)
    assert scene.actor_pose("target", 0)[0] == pytest.approx(x[1] + 0.03, abs=1e-6)
