"""A result reads itself back, and refuses a file that is damaged, of another version, or contradicts itself."""

import json
import math
from dataclasses import asdict

import pytest
from helpers.eval_results import eval_result

from rlft.errors import RlftError, require_extra
from rlft.evaluate.result import EvalResult
from rlft.files import to_json, write_stage

FRUIT = [{"object": "carrot"}, {"object": "carrot"}, {"object": "bread"}]


def test_a_result_comes_back_and_the_files_name_is_its_label(tmp_path):
    result = eval_result("rl", [True, True, False], FRUIT)
    found = EvalResult.load(write_stage(tmp_path, "eval_kept", asdict(result)))
    assert to_json(asdict(found)) == to_json(asdict(result)) | {"label": "kept"}
    assert found.strata == result.strata
    assert found.max_episode_len == 50


def test_numbers_that_were_not_finite_come_back_as_nan(tmp_path):
    path = write_stage(tmp_path, "eval_rl", asdict(eval_result("rl", [True], gain=math.inf)))
    found = EvalResult.load(path)
    assert math.isnan(found.mean_return)
    assert math.isnan(found.per_episode[0].episode_return)


def changed(*path, **values):
    def change(content):
        for key in path:
            content = content[key]
        content.update(values)

    return change


def lacking(*path):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lacking("protocol"), "protocol: Field required"),
        (lacking("macro"), "macro: Field required"),
        (lacking("per_episode", 1, "seed"), r"per_episode\.1\.seed: Field required"),
        (lacking("strata", "object", 0, "ci95"), r"strata\.object\.0\.ci95: Field required"),
        (changed(successes="two"), "successes: Input should be a valid integer"),
        (changed("per_episode", 0, success_once=None), r"per_episode\.0\.success_once: .* boolean"),
        (changed("protocol", max_episode_steps=80), "protocol_hash is not that of the protocol"),
        (changed(successes=3), "episodes=3, successes=3, success=0.66.* contradict per_episode, which holds 2 of 3"),
        (changed("per_episode", 2, index=1), "per_episode does not hold each of the protocol's 3 episodes"),
        (lacking("per_episode", 2), "per_episode does not hold each"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_with_field_and_remedy(change, message, tmp_path):
    path = write_stage(tmp_path, "eval_rl", asdict(eval_result("rl", [True, True, False], FRUIT)))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RlftError, match=rf"eval_rl\.json: .*{message}.*; evaluate .*eval\.label=rl, or move the file"):
        EvalResult.load(path)


@pytest.mark.parametrize("content", ["", "[1, 2]", '{\n  "label": "rl",\n', "{}"])
def test_a_file_that_is_no_result_at_all_is_refused(content, tmp_path):
    path = tmp_path / "eval_rl.json"
    path.write_text(content)
    with pytest.raises(RlftError, match=r"eval_rl\.json: .*damaged, edited, or by another version.*eval\.label=rl"):
        EvalResult.load(path)


def test_a_missing_package_names_the_extra():
    with pytest.raises(RlftError, match=r"needs no_such_one, .*: pip install 'rlft-flow\[report\]'"):
        require_extra("report", "json", "no_such_one")
