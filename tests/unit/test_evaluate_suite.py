"""A suite is one table: differences with intervals, nothing run twice, unlike members named."""

import json
from dataclasses import asdict, replace

import pytest
from helpers.toy_world import toy_evaluator, toy_model

from rlft.evaluate.suite import SuiteTable, finished, make_table, markdown, run_members
from rlft.files import to_json, write_stage
from rlft.statistics import difference_interval

MEMBERS = [("main", "in_distribution"), ("words", "semantics"), ("things", "semantics")]


def result_of(fingerprint="f" * 64, **changes):
    evaluator = toy_evaluator(**({"limit": 20} | changes))
    return evaluator.run(toy_model().actor.policy, "test", fingerprint=fingerprint)


def in_file(result, label="test"):
    """What its file holds."""
    return to_json(asdict(result)) | {"label": label}


@pytest.fixture(scope="module")
def results():
    return {"main": result_of(), "words": result_of(instruction="go"), "things": result_of(seed=7, instruction="run")}


def test_a_member_is_compared_with_the_one_in_distribution(results):
    changed = replace(results["words"], successes=1, success=1 / 12)
    table = make_table("rl", "mine", "f" * 64, MEMBERS, {**results, "words": changed})
    main, words, things = table.rows
    assert (main.difference, main.difference_ci95) == (None, None)
    assert words.difference == pytest.approx(1 / 12 - main.success)
    assert words.difference_ci95 == difference_interval((1, 12), (main.successes, 12))
    assert (things.difference, things.success) == (0.0, main.success)
    assert table.groups == {"in_distribution": main.success, "semantics": pytest.approx((1 / 12 + main.success) / 2)}
    assert table.unequal == {}


def test_members_that_were_not_measured_alike_are_named(results):
    other = result_of(limit=19)
    table = make_table("rl", "mine", "f" * 64, MEMBERS, {**results, "words": other})
    assert table.unequal == {"max_episode_steps": ["20", "19"]}
    assert "**Not comparable.** max_episode_steps: 20, 19." in markdown(table)


def test_the_table_for_people(results):
    text = markdown(make_table("rl", "mine", "f" * 64, MEMBERS, results))
    assert "Not comparable" not in text
    (line,) = (line for line in text.splitlines() if line.startswith("| words"))
    assert f"`{results['words'].protocol_hash[:12]}`" in line
    assert "+0.0 points [" in line


def test_the_table_comes_back_from_its_file(tmp_path, results):
    table = make_table("rl", "mine", "f" * 64, MEMBERS, results)
    assert SuiteTable.load(write_stage(tmp_path, "eval_suite_rl", asdict(table))) == table


def test_what_is_done_is_not_run_again_and_anything_else_is(tmp_path, results, caplog):
    caplog.set_level("INFO")
    run = []

    def evaluate(name):
        run.append(name)
        write_stage(tmp_path, f"eval_{name}", asdict(results[name]))
        return results[name]

    names = list(results)
    hashes = {name: result.protocol_hash for name, result in results.items()}
    assert run_members(hashes, "f" * 64, tmp_path, evaluate) == results
    assert (run, caplog.messages) == (names, [])
    run.clear()
    (tmp_path / "eval_words.json").unlink()
    found = run_members(hashes, "f" * 64, tmp_path, evaluate)
    assert {name: in_file(result, name) for name, result in found.items()} == {
        name: in_file(result, name) for name, result in results.items()
    }
    assert run == ["words"]
    assert [line.split(": done already")[0] for line in caplog.messages] == ["main", "things"]
    run.clear()
    run_members(hashes | {"main": "0" * 64}, "f" * 64, tmp_path, evaluate)
    assert run == ["main"]
    run.clear()
    run_members(hashes, "e" * 64, tmp_path, evaluate)
    assert run == names


def test_a_damaged_result_is_not_a_result(tmp_path, results):
    protocol_hash, kept = results["main"].protocol_hash, in_file(results["main"], "main")
    path = write_stage(tmp_path, "eval_main", kept)
    assert in_file(finished(path, protocol_hash, "f" * 64), "main") == kept
    path.write_text(json.dumps(kept)[:-100])
    assert finished(path, protocol_hash, "f" * 64) is None
    path.write_text("[]")
    assert finished(path, protocol_hash, "f" * 64) is None
    assert finished(tmp_path / "nothing.json", protocol_hash, "f" * 64) is None


@pytest.mark.parametrize("name", ["protocol", "protocol_hash", "episodes", "success", "ci95", "success_at_end"])
def test_a_result_that_lacks_what_a_row_needs_is_run_again(name, tmp_path, results):
    kept = {key: x for key, x in in_file(results["main"]).items() if key != name}
    path = write_stage(tmp_path, "eval_main", kept)
    assert finished(path, results["main"].protocol_hash, "f" * 64) is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [  # Newcombe 1998, table II, method 10
        *(((56, 70), (48, 80), (0.0524, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.8090))),
        *(((10, 10), (0, 20), (0.6791, 1.0)), ((10, 10), (0, 10), (0.6075, 1.0))),
    ],
)
def test_the_interval_of_a_difference_is_the_published_one(first, second, expected):
    assert difference_interval(first, second) == pytest.approx(expected, abs=6e-5)
