"""PutOnPlateInScene25's bookkeeping for N environments, on a scene whose poses and forces are scripted."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from assets_at import assets_root
from helpers.device_reads import DeviceReads
from scripted_scene import scripted

from rlft_envs.errors import EnvSetupError
from rlft_tasks.put_on_plate.terms import holding

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
        wanted = scene.env.running[i].things["source"].at[:2]
        np.testing.assert_allclose(scene.actor_pose("source", i)[:2], wanted, atol=0.06)


def test_each_row_is_what_one_environment_alone_would_have():
    name, seeds, numbers = f"{PREFIX}EEPose-v1", [1, 2, 3], [17, 500_000_000, 9_999_999_999]
    together = scripted(name, 3, assets_root(), "test")
    together.start([2, 0, 1], [seeds[2], seeds[0], seeds[1]], [numbers[2], numbers[0], numbers[1]])
    for i in range(3):
        alone = scripted(name, 1, assets_root(), "test")
        alone.start([0], [seeds[i]], [numbers[i]])
        for key, rows in alone.rows().items():
            assert np.array_equal(rows[0], together.rows()[key][i]), key


def test_one_reset_of_all_draws_each_rows_own_seed():
    together = scripted(f"{PREFIX}Main-v3", 3, assets_root())
    together.start([2, 0, 1], [72, 70, 71])
    alone = scripted(f"{PREFIX}Main-v3", 3, assets_root())
    for i in range(3):
        alone.start([i], [70 + i])
    assert together.env.running == alone.env.running
    for name, rows in alone.rows().items():
        assert np.array_equal(together.rows()[name], rows), name
    alone.start([2], [70])
    assert alone.env.running[2] == alone.env.running[0] != alone.env.running[1]


def test_what_was_not_built_is_refused_before_anything_is_written():
    scene = scripted(f"{PREFIX}Main-v3", 2, assets_root())
    scene.start([0, 1], [0, 0], [0, 0])
    before = scene.rows()["poses"]
    scene.env._sets[1] = scene.env.configurations("test")
    with pytest.raises(EnvSetupError, match="not in this simulation; give obj_set to make_kwargs"):
        scene.start([0, 1], [0, 0], [9_999, 0])
    assert np.array_equal(scene.rows()["poses"], before)


def test_a_reset_is_one_write_and_a_step_one_query():
    scene = scripted(f"{PREFIX}MultiPlate-v1", 4, assets_root())
    counts = scene.physics.counts
    for ids in ([0, 1, 2, 3], [3, 1]):
        before = dict(counts)
        scene.start(ids, ids)
        assert counts["buffer"] - before["buffer"] == 1
    scene.env.evaluate()
    for _ in range(3):
        before = dict(counts)
        scene.step()
        scene.env.evaluate()
        assert {name: counts[name] - before[name] for name in counts} == {"buffer": 1, "created": 0, "asked": 1}
    assert counts["created"] == 1


@pytest.mark.parametrize(("name", "split"), [("Main-v3", "train"), ("PositionChangeTo-v1", "test")])
def test_a_step_reads_nothing_from_the_device(name, split):
    scene = scripted(f"{PREFIX}{name}", 3, assets_root(), split)
    scene.start([0, 1, 2], [0, 1, 2])
    scene.env.evaluate()  # makes the query
    env, action = scene.env, torch.zeros(3, 7)
    for _ in range(6):  # beyond the jump
        with DeviceReads() as reads:
            env._after_control_step()
            info = env.evaluate()
            env.compute_normalized_dense_reward({}, action, info)
        env._elapsed_steps += 1
        assert reads.counts.total() == 0, reads.counts


@pytest.mark.parametrize("name", ["Main-v3", "VisionTexture03-v1", "VisionWhole03-v1"])
def test_an_image_reads_nothing_from_the_device(name):
    scene = scripted(f"{PREFIX}{name}", 3, assets_root(), "test")
    env = scene.env
    env.scene.can_render = lambda: True
    env.scene.sensors = {"3rd_view_camera": SimpleNamespace(config=SimpleNamespace(height=24, width=32))}
    env._table = SimpleNamespace(_objs=[SimpleNamespace(per_scene_id=1)])
    scene.start([0, 1, 2], [0, 1, 2])
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randint(256, (3, 24, 32, 3), generator=generator).to(torch.uint8)
    segmentation = torch.randint(4, (3, 24, 32), generator=generator)
    with DeviceReads() as reads:
        env.compose_image("3rd_view_camera", rgb, segmentation)
    assert reads.counts.total() == 0, reads.counts


def test_reads_are_seen():
    flags = torch.tensor([True, False])
    reading = {
        "bool": lambda: bool(flags.any()),
        "item": lambda: flags[0].item(),
        "tolist": lambda: flags.tolist(),
        "unique": lambda: torch.unique(flags),
        "nonzero": lambda: flags.nonzero(),
        "mask": lambda: flags[flags],
        "numpy": lambda: np.asarray(flags),
        "index": lambda: [1, 2][flags.sum()],
    }
    for name, read in reading.items():
        with DeviceReads() as reads:
            read()
        assert reads.counts.total() > 0, name


def test_holding_is_what_maniskill_calls_grasping():
    from mani_skill.agents.robots.widowx.widowx import WidowX250S
    from mani_skill.utils.structs import Pose

    generator = torch.Generator().manual_seed(0)
    n = 4000
    turned = torch.nn.functional.normalize(torch.randn(2, n, 4, generator=generator), dim=2)
    fingers = [SimpleNamespace(pose=Pose.create(torch.nn.functional.pad(q, (3, 0)))) for q in turned]
    opening = torch.stack([s * f.pose.to_transformation_matrix()[:, :3, 1] for s, f in zip((1, -1), fingers)])
    forces = opening * 3 * torch.rand(2, n, 1, generator=generator) + torch.randn(2, n, 3, generator=generator)
    forces[:, :5] = 0.0
    for finger, force in zip(fingers, forces):
        finger.force = force
    scene = SimpleNamespace(get_pairwise_contact_forces=lambda finger, _: finger.force)
    robot = SimpleNamespace(scene=scene, finger1_link=fingers[0], finger2_link=fingers[1])
    theirs = WidowX250S.is_grasping(robot, None)
    assert 0.2 < theirs.float().mean() < 0.8
    assert torch.equal(holding(forces, opening), theirs)


def test_one_finger_or_a_push_from_the_side_holds_nothing():
    scene = scripted(f"{PREFIX}Single-v1", 3, assets_root())
    scene.start([0, 1, 2], [0, 0, 0], [0, 0, 0])
    key = scene.env.running[0].things["source"].model.key
    scene.step()
    both, one, sideways = [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.05, 0.0]
    touching = {"finger1": [both, both, sideways], "finger2": [both, one, both]}
    opens = {"finger1": 1.0, "finger2": -1.0}
    found = {(finger, key): opens[finger] * torch.tensor(force) for finger, force in touching.items()}
    scene.contacts = lambda: found
    assert scene.env.evaluate()["grasped_now"].tolist() == [True, False, False]


def test_success_and_grasps_are_read_from_each_environments_own_actors():
    scene = scripted(f"{PREFIX}Main-v3", 3, assets_root())
    one_object = 16 * 784 * 4
    scene.start([0, 1, 2], [0, 0, 0], [0, 3 * one_object, 3 * one_object])
    keys = [scene.env.running[i].things["source"].model.key for i in range(3)]
    plate = scene.env.running[0].things["target"].model.key
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
    key, plate = scene.env.running[0].things["source"].model.key, scene.env.running[0].things["target"].model.key
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


def test_each_environment_jumps_in_its_fifth_step_and_undoes_nothing_that_moved_in_it():
    """The buffer that a jump is written into holds the poses from before the step, until they are fetched."""
    scene = scripted(f"{PREFIX}PositionChangeTo-v1", 2, assets_root(), "test")
    scene.start([0, 1], [0, 0], [40, 4_000])
    for _ in range(2):
        scene.step()
    scene.start([1], [0], [8_000])
    x = scene.actor_pose("source", 1)[0], scene.actor_pose("target", 0)[0]
    for _ in range(3):
        scene.step(drift=0.01)  # the last is environment 0's fifth
    np.testing.assert_allclose(scene.actor_pose("source", 0)[:2], scene.env.running[0].jump.at[:2], atol=0.03)
    assert scene.actor_pose("source", 1)[0] == pytest.approx(x[0] + 0.03, abs=1e-6)
    assert scene.actor_pose("target", 0)[0] == pytest.approx(x[1] + 0.03, abs=1e-6)
    for _ in range(2):
        scene.step()
    np.testing.assert_allclose(scene.actor_pose("source", 1)[:2], scene.env.running[1].jump.at[:2], atol=0.03)
