"""The environment id alone picks the task's file."""

import pytest

from rlft.config.compose import compose_tree
from rlft.config.groups import takes_a_task, task_serving


@pytest.mark.parametrize(
    ("env_id", "task"),
    [
        ("PickCube-v1", "pick_cube"),
        ("ToyReach-v0", "toy"),
        ("PutOnPlateInScene25Single-v1", "put_on_plate"),
        ("PutOnPlateInScene25VisionTexture03-v1", "put_on_plate"),
        ("PutSpoonOnTableClothInScene-v1", "widowx"),
        ("NoSuchTask-v1", None),
    ],
)
def test_the_file_that_serves_an_id(env_id, task):
    assert task_serving(env_id) == task


def test_a_directory_of_ones_own_comes_first(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("env: {id: PickCube-v1}\n")
    (tmp_path / "task" / "broken.yaml").write_text("env: {id: [\n")
    assert task_serving("PickCube-v1", tmp_path) == "mine"


def test_the_id_brings_controller_and_cameras_with_it():
    env = compose_tree("collect_demos", ["env.id=PutSpoonOnTableClothInScene-v1", "env.max_episode_len=70"])["env"]
    assert env["id"] == "PutSpoonOnTableClothInScene-v1"
    assert env["control_mode"] == "arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos"
    assert [camera["name"] for camera in env["cameras"]] == ["3rd_view_camera"]
    assert env["max_episode_len"] == 70


def test_a_task_that_is_named_wins_over_the_id():
    env = compose_tree("train_rl", ["task=push_heavy_cube", "env.id=PushCube-v1"])["env"]
    assert env["make_kwargs"]["variation"]["object_mass"] == 13.0


def test_an_entry_without_a_task_keeps_its_own_settings(tmp_path):
    (tmp_path / "mine.yaml").write_text("env: {simulator: toy, control_mode: pd_joint_pos}\n")
    assert not takes_a_task(tmp_path / "mine.yaml")
    env = compose_tree("train_rl", ["env.id=PickCube-v1"], tmp_path, "mine")["env"]
    assert env["control_mode"] == "pd_joint_pos"


def test_a_directory_may_hold_a_task_and_nothing_else(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text(
        "# @package _global_\nserves: [Mine-v*]\nenv: {simulator: toy, id: Mine-v1, max_episode_len: 7}\n"
    )
    assert compose_tree("train_rl", ["env.id=Mine-v1"], tmp_path)["env"]["max_episode_len"] == 7
    assert compose_tree("train_rl", ["env.id=Mine-v2"], tmp_path)["env"]["max_episode_len"] == 7
    assert compose_tree("train_rl", ["task=mine"], tmp_path)["env"]["id"] == "Mine-v1"
