"""The protocol's hash says whether two evaluations can be compared: no more, and no less."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from helpers.toy_protocol import toy_protocol
from helpers.toy_world import toy_settings

from rlft.evaluate.protocol import EvalProtocol
from rlft.files import canonical_json, content_hash
from rlft.types import CameraSettings, EnvSettings, RewardSettings

CAMERA = CameraSettings("top", 28, 28)


def protocol(**changes):
    return toy_protocol(toy_settings(**({"num_envs": 2, "cameras": (CAMERA,)} | changes)))


# Every field of EnvSettings: a value unlike the usual one, and on which side of the hash it stands.
OUTSIDE = {"num_envs": 8, "num_workers": 2, "sim_device": "cuda:1", "render_backend": "other", "privileged": True}
OUTSIDE |= {"reward": RewardSettings("sparse", 1.0, 5.0), "reward_per_chunk": True, "step_timeout_s": 1.0}
OUTSIDE |= {"max_restarts": 9, "assets_root": "elsewhere", "first_env": 3}
INSIDE = {"simulator": "maniskill", "sim_backend": "gpu", "env_id": "Other-v0", "make_kwargs": {"obj_set": "test"}}
INSIDE |= {"options": {"success": "solved"}, "robot": "panda", "shader": "default", "control_mode": "joints"}
INSIDE |= {"cameras": (), "state_terms": ("qpos",), "instruction": "push it", "max_episode_steps": 7}
INSIDE |= {"episode_ends_on_success": False}
# Every field of a camera, and every rule of the protocol that is no setting of an environment.
OF_A_CAMERA = {"name": "side", "height": 56, "width": 56, "fov": 0.5, "eye": (1.0, 0.0, 0.0), "target": (0.0, 0.0, 1.0)}
RULES = {"select": "all", "episodes": 13, "seed": 8, "configuration_ids": tuple(range(12)), "num_steps": 4}
RULES |= {"act_steps": 1, "version": 99}


def names_of(kind):
    return {field.name for field in dataclasses.fields(kind)}


def test_every_setting_is_on_one_side_of_the_hash():
    """A new field of any of these has to be put into one of the tables above, with a value that is tested below."""
    assert names_of(EnvSettings) == set(OUTSIDE) | set(INSIDE)
    assert not set(OUTSIDE) & set(INSIDE)
    assert names_of(CameraSettings) == set(OF_A_CAMERA)
    named_otherwise = {"episode_ends_on_success": "episode_end"}
    assert names_of(EvalProtocol) == {named_otherwise.get(name, name) for name in INSIDE} | set(RULES)


@pytest.mark.parametrize("name", OUTSIDE)
def test_how_the_work_is_done_is_not_in_the_hash(name):
    assert hash_of(**{name: OUTSIDE[name]}) == hash_of()


@pytest.mark.parametrize(
    "changes",
    [
        *({name: value} for name, value in INSIDE.items()),
        *({"cameras": (dataclasses.replace(CAMERA, **{name: value}),)} for name, value in OF_A_CAMERA.items()),
    ],
    ids=[*INSIDE, *OF_A_CAMERA],
)
def test_what_an_episode_is_is_in_the_hash(changes):
    assert hash_of(**changes) != hash_of()


def test_the_order_of_the_cameras_is_in_the_hash():
    other = dataclasses.replace(CAMERA, name="side")
    assert hash_of(cameras=(CAMERA, other)) != hash_of(cameras=(other, CAMERA))


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_in_the_hash(name):
    assert dataclasses.replace(protocol(), **{name: RULES[name]}).hash != protocol().hash


def hash_of(**changes):
    """Of settings that need not exist anywhere."""
    settings = dataclasses.replace(toy_settings(2, cameras=(CAMERA,)), **changes)
    rules = {"select": "seeds", "episodes": 12, "seed": 7, "configuration_ids": None, "num_steps": 3, "act_steps": 2}
    return EvalProtocol.of(settings, **rules).hash


def test_the_configurations_and_their_order_are_in_the_hash():
    first = dataclasses.replace(protocol(), episodes=3, configuration_ids=(1, 2, 3))
    assert first.hash != dataclasses.replace(first, configuration_ids=(1, 3, 2)).hash
    assert first.hash != dataclasses.replace(first, configuration_ids=(1, 2, 4)).hash
    with pytest.raises(ValueError, match="episodes=4, but 3 configuration_ids"):
        dataclasses.replace(first, episodes=4)


def test_the_hash_is_that_of_the_stored_text_and_the_same_in_every_process():
    one = protocol(make_kwargs={"b": 1.0, "a": [2, {"y": None, "x": "ä"}]})
    stored = json.loads(json.dumps(one.to_dict()))
    assert content_hash(stored) == one.hash
    same = protocol(make_kwargs={"a": (2, {"x": "ä", "y": None}), "b": 1})
    assert same.hash == one.hash
    code = (
        "import json, sys; sys.path[:0] = json.loads(sys.argv[1]);"
        "from test_evaluate_protocol import protocol;"
        "print(protocol(make_kwargs={'a': [2, {'x': 'ä', 'y': None}], 'b': 1.0}).hash)"
    )
    for salt in ("1", "2"):  # sets and dictionaries of texts stand in another order
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(sys.path)],
            capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": salt},
        )  # fmt: skip
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
