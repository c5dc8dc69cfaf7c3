import json
import math

import numpy as np
import pytest
import torch

from rlft.errors import RlftError
from rlft.files import read_stage, to_json, write_stage, write_text_atomically
from rlft.run.provenance import machine_facts
from rlft.statistics import explained_variance, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (four digits).
        *((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)),
        *((1, 29, 0.0061, 0.1718), (29, 29, 0.8830, 1.0)),
    ],
)
def test_wilson_interval_against_published_numbers(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_solves_its_equation():
    for bound in wilson_interval(37, 128):
        z = (37 / 128 - bound) / math.sqrt(bound * (1 - bound) / 128)
        assert abs(z) == pytest.approx(1.959963984540054, rel=1e-9)


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_interval_refuses_counts_that_contradict_each_other(successes, trials):
    with pytest.raises(ValueError, match="successes="):
        wilson_interval(successes, trials)


def test_explained_variance():
    target = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert explained_variance(target, target) == 1.0
    assert explained_variance(torch.full((4,), 2.5), target) == 0.0
    assert explained_variance(target.flip(0), target) == pytest.approx(1 - 5.0 / 1.25)
    assert explained_variance(target + 7, target) == 1.0  # an offset is no variance
    assert math.isnan(explained_variance(target, torch.ones(4)))
    with pytest.raises(ValueError, match="differ in shape"):
        explained_variance(target, target[:, None])


def test_a_stage_result_comes_back_as_valid_json(tmp_path):
    result = {"loss": math.nan, "ci95": (0.1, np.float32(0.5)), "n": np.int64(3), "t": torch.tensor(2.0), "p": tmp_path}
    path = write_stage(tmp_path / "run", "sft", result)
    assert path == tmp_path / "run" / "sft.json"
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    back = {"loss": None, "ci95": [0.1, 0.5], "n": 3, "t": 2.0, "p": str(tmp_path)}
    assert read_stage(tmp_path / "run", "sft") == back


def test_a_missing_or_damaged_stage_is_told(tmp_path):
    with pytest.raises(RlftError, match="has the stage 'rl' been run"):
        read_stage(tmp_path, "rl")
    (tmp_path / "rl.json").write_text('{"a": ')
    with pytest.raises(RlftError, match="not valid JSON"):
        read_stage(tmp_path, "rl")
    (tmp_path / "rl.json").write_text("[]")
    with pytest.raises(RlftError, match="expected a JSON object"):
        read_stage(tmp_path, "rl")


def test_what_has_no_json_form_is_refused_and_leaves_the_old_file(tmp_path):
    write_stage(tmp_path, "rl", {"a": 1})
    with pytest.raises(TypeError, match="object"):
        write_stage(tmp_path, "rl", {"a": object()})
    assert read_stage(tmp_path, "rl") == {"a": 1}
    assert to_json({"x": [np.ones(2)]}) == {"x": [[1.0, 1.0]]}


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    (tmp_path / "x").mkdir()  # a directory cannot be replaced by a file
    with pytest.raises(OSError, match="x"):
        write_text_atomically(tmp_path / "x", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_machine_facts_name_versions():
    facts = machine_facts()
    assert torch.__version__.startswith(facts["versions"]["torch"])
    assert facts["cpu_cores"] >= 1
    json.dumps(facts)
