"""What the protocol's hash says may be compared, and its stratified samples: balanced, named by their seed."""

import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from helpers.toy_world import toy_protocol, toy_settings

from rlft.errors import RlftError
from rlft.evaluate.protocol import EvalProtocol, balanced_order, choose_ids, stratified_sample
from rlft.evaluate.result import tabulate
from rlft.files import canonical_json, content_hash
from rlft.statistics import wilson_interval
from rlft.types import CameraSettings, ConfigurationSpace, EnvSettings, RewardSettings

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


MAIN = {"object": 16, "plate": 1, "table": 16, "position": 784, "yaw": 4}  # PutOnPlateInScene25Main-v3, train
ODD = {"object": 3, "extra": 4, "plate": 2, "table": 6, "yaw": 5}
HUGE = {"object": 16, "extra": 14_375, "plate": 1, "table": 16, "position": 784, "yaw": 4}


def read(number, digits):
    """The digits of a number, by repeated division."""
    found = {}
    for name in reversed(list(digits)):
        number, found[name] = divmod(number, digits[name])
    assert number == 0
    return found


def numbered(digits):
    return ConfigurationSpace(
        digits, lambda i: {name: str(value) for name, value in read(i, digits).items()}, ("object", "plate", "table")
    )


def spread(counts, kinds):
    """Largest minus smallest count, values that were never drawn included."""
    return max(counts.values()) - (min(counts.values()) if len(counts) == kinds else 0)


@pytest.mark.parametrize("digits", [MAIN, ODD, HUGE], ids=["main", "odd", "huge"])
@pytest.mark.parametrize("count", [1, 7, 16, 17, 100, 256, 300])
def test_every_digit_and_every_combination_of_the_strata_is_balanced(digits, count):
    drawn = stratified_sample(numbered(digits), count, seed=5)
    assert len(set(drawn)) == count
    assert all(0 <= number < math.prod(digits.values()) for number in drawn)
    rows = [read(number, digits) for number in drawn]
    for name, size in digits.items():
        assert spread(Counter(row[name] for row in rows), size) <= 1, name
    cells = Counter((row["object"], row["plate"], row["table"]) for row in rows)
    assert spread(cells, digits["object"] * digits["plate"] * digits["table"]) <= 1


def test_a_whole_split_is_every_configuration_once():
    total = math.prod(ODD.values())
    assert sorted(stratified_sample(numbered(ODD), total, seed=1)) == list(range(total))


@pytest.mark.parametrize("sizes", list(itertools.product([1, 2, 4, 6, 9], repeat=3)))
def test_the_order_visits_every_cell_once_and_is_balanced_in_every_beginning(sizes):
    order = np.stack(balanced_order(sizes, math.prod(sizes)))
    assert len({tuple(cell) for cell in order.T}) == math.prod(sizes)
    for axis, size in zip(order, sizes, strict=True):
        counts = np.cumsum(axis[:, None] == np.arange(size), axis=0)
        assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1


@pytest.mark.parametrize("count", [1, 5, 23, 60])
def test_a_beginning_is_the_same_however_far_the_order_is_computed(count):
    whole = np.stack(balanced_order([4, 6, 5], 120))[:, :count]
    assert np.array_equal(np.stack(balanced_order([4, 6, 5], count)), whole)


def test_the_seed_names_the_sample_and_a_shorter_one_begins_a_longer_one():
    sample = stratified_sample(numbered(MAIN), 64, seed=5)
    assert sample == stratified_sample(numbered(MAIN), 64, seed=5)
    assert sample == stratified_sample(numbered(MAIN), 200, seed=5)[:64]
    assert sample != stratified_sample(numbered(MAIN), 64, seed=6)


def test_what_is_selected():
    small = numbered({"object": 2, "table": 3})
    assert choose_ids("all", 99, 0, small) == (0, 1, 2, 3, 4, 5)
    assert sorted(choose_ids("stratified", 6, 0, small)) == [0, 1, 2, 3, 4, 5]
    drawn = choose_ids("seeds", 600, 0, small)
    assert set(drawn) == {0, 1, 2, 3, 4, 5}
    assert drawn[:10] == choose_ids("seeds", 10, 0, small)
    assert choose_ids("seeds", 600, 0, None) is None


def test_drawn_configurations_reach_beyond_the_largest_seed():
    drawn = choose_ids("seeds", 50, 0, numbered(HUGE))
    assert max(drawn) > 2**31
    assert len(set(drawn)) == 50


@pytest.mark.parametrize(
    ("select", "task", "episodes", "message"),
    [
        ("all", None, 5, "eval.select=all needs a task whose configurations are numbered"),
        ("stratified", None, 5, "use eval.select=seeds"),
        ("stratified", numbered({"object": 2}), 3, "has 2 configurations; use eval.episodes=2 or less"),
        ("all", numbered(HUGE), 3, "would run 11,540,480,000 episodes"),
    ],
)
def test_what_a_task_cannot_give_is_refused(select, task, episodes, message):
    with pytest.raises(RlftError, match=message):
        choose_ids(select, episodes, 0, task)


def test_tables_count_by_label():
    outcomes = [
        ({"object": "carrot", "table": "a"}, True, True),
        ({"object": "carrot", "table": "b"}, True, False),
        ({"object": "bread", "table": "a"}, False, False),
        ({}, True, True),
    ]
    tables = tabulate(outcomes)
    bread, carrot = tables["object"]
    assert (bread.name, bread.episodes, bread.successes, bread.success) == ("bread", 1, 0, 0.0)
    assert (carrot.name, carrot.successes, carrot.success, carrot.success_at_end) == ("carrot", 2, 1.0, 0.5)
    assert carrot.ci95 == wilson_interval(2, 2)
    assert [(row.name, row.successes, row.episodes) for row in tables["table"]] == [("a", 1, 2), ("b", 1, 1)]
