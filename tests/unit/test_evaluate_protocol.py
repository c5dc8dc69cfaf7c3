"""The protocol's hash says whether two evaluations can be compared: no more, and no less."""

import dataclasses
import json
import subprocess
import sys

import pytest
from helpers.toy_protocol import toy_protocol
from helpers.toy_world import toy_settings

from rlft.evaluate import Protocol
from rlft.metrics import canonical_json, content_hash
from rlft.types import CameraSettings, RewardSettings

CAMERA = CameraSettings("top", 28, 28)


def protocol(**changes):
    return toy_protocol(toy_settings(**({"num_envs": 2, "cameras": (CAMERA,)} | changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_envs": 8},
        {"num_workers": 2},
        {"sim_device": "cuda:1"},
        {"render_backend": "other"},
        {"privileged": True},
        {"reward": RewardSettings("sparse", 1.0, 5.0)},
        {"step_timeout_s": 1.0},
        {"assets_root": "elsewhere"},
        {"first_env": 3},
    ],
    ids=str,
)
def test_how_the_work_is_done_is_not_in_the_hash(changes):
    assert protocol(**changes).hash == protocol().hash


@pytest.mark.parametrize(
    "changes",
    [
        {"env_id": "Other-v0"},
        {"limit": 7},
        {"make_kwargs": {"obj_set": "test"}},
        {"cameras": (dataclasses.replace(CAMERA, height=56),)},
        {"cameras": (dataclasses.replace(CAMERA, name="side"),)},
        {"cameras": ()},
        {"instruction": "push it"},
        {"control_mode": "joints"},
        {"episode_ends_on_success": False},
        {"shader": "default"},
        {"robot": "panda"},
        {"simulator": "maniskill"},
    ],
    ids=str,
)
def test_what_an_episode_is_is_in_the_hash(changes):
    assert hash_of(**changes) != hash_of()


def hash_of(**changes):
    """Of settings that need not exist anywhere."""
    settings = toy_settings(**({"num_envs": 2, "cameras": (CAMERA,)} | changes))
    rules = {"select": "seeds", "episodes": 12, "seed": 7, "episode_ids": None, "num_steps": 3, "act_steps": 2}
    return Protocol.of(settings, **rules).hash


@pytest.mark.parametrize(
    "changes",
    [{"episodes": 13}, {"seed": 8}, {"num_steps": 4}, {"act_steps": 1}, {"select": "all"}, {"version": 2}],
    ids=str,
)
def test_every_rule_is_in_the_hash(changes):
    assert dataclasses.replace(protocol(), **changes).hash != protocol().hash


def test_the_configurations_and_their_order_are_in_the_hash():
    first = dataclasses.replace(protocol(), episodes=3, episode_ids=(1, 2, 3))
    assert first.hash != dataclasses.replace(first, episode_ids=(1, 3, 2)).hash
    assert first.hash != dataclasses.replace(first, episode_ids=(1, 2, 4)).hash
    with pytest.raises(ValueError, match="episodes=4, but 3 episode_ids"):
        dataclasses.replace(first, episodes=4)


def test_the_hash_is_that_of_the_stored_text_and_the_same_in_every_process():
    one = protocol(make_kwargs={"b": 1.0, "a": [2, {"y": None, "x": "ä"}]})
    stored = json.loads(json.dumps(one.to_dict()))
    assert content_hash(stored) == one.hash
    same = protocol(make_kwargs={"a": (2, {"x": "ä", "y": None}), "b": 1})
    assert same.hash == one.hash
    code = (
        f"from rlft.metrics import content_hash; import json; print(content_hash(json.loads({json.dumps(stored)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == one.hash


def test_a_protocol_cannot_change():
    arguments = {"obj_set": "train"}
    one = protocol(make_kwargs=arguments)
    before = one.hash
    arguments["obj_set"] = "test"
    assert one.hash == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.seed = 8
    assert isinstance(hash(one), int)


def test_canonical_json_has_one_text_for_a_value_and_none_for_no_number():
    assert canonical_json({"b": 1.0, "a": (True, None)}) == '{"a":[true,null],"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json([float("nan")])
