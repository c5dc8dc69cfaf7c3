"""The report shows each evaluation's protocol, refuses to compare unlike ones, and tells strata and suites."""

from dataclasses import replace
from pathlib import Path

import pytest
from report_run_builder import write_evaluation

from rlft.evaluate.strata import tabulate
from rlft.evaluate.suite import make_table
from rlft.files import read_stage, write_stage
from rlft.report.build import build_report
from rlft.report.evalfiles import RunFileError
from rlft.report.pairs import find_pairs
from rlft.report.rundir import read_run


def page_of(directory: Path) -> str:
    return build_report(directory).html.read_text()


def test_a_table_of_one_protocol_shows_its_hash_and_no_warning(tmp_path: Path):
    write_evaluation(tmp_path, "sft", [False, True])
    write_evaluation(tmp_path, "rl", [True, True])
    page = page_of(tmp_path)
    protocol_hash = read_stage(tmp_path, "eval_rl")["protocol_hash"]
    assert page.count(f"<code>{protocol_hash[:12]}</code>") == 2
    assert protocol_hash in page  # in full, with the fields that it is made of
    assert "McNemar" in page
    assert "can be compared" not in page


def test_unlike_evaluations_are_refused_loudly(tmp_path: Path):
    write_evaluation(tmp_path, "sft", [False, True])
    write_evaluation(tmp_path, "rl", [True, True], {"max_episode_steps": 80})
    page = page_of(tmp_path)
    assert "Before and after were not measured alike, so they are not compared" in page
    assert "max_episode_steps: 50 before, 80 after" in page
    assert "other protocols: not comparable" in page  # in the figure
    assert "McNemar" not in page
    assert "These evaluations follow 2 protocols; only rows of the same protocol can be compared" in page
    assert find_pairs(read_run(tmp_path)) == []


def test_another_evaluation_beside_comparable_ones_is_told_too(tmp_path: Path):
    write_evaluation(tmp_path, "sft", [False, True])
    write_evaluation(tmp_path, "rl", [True, True])
    write_evaluation(tmp_path, "rl_long", [True, True], {"max_episode_steps": 200})
    page = page_of(tmp_path)
    assert "McNemar" in page
    assert "These evaluations follow 2 protocols" in page


def test_a_protocol_that_was_edited_by_hand_is_refused(tmp_path: Path):
    write_evaluation(tmp_path, "rl", [True])
    result = read_stage(tmp_path, "eval_rl")
    result["protocol"]["max_episode_steps"] = 80
    write_stage(tmp_path, "eval_rl", result)
    with pytest.raises(RunFileError, match="protocol_hash is not that of the protocol"):
        read_run(tmp_path)


def test_success_by_stratum_leaves_out_labels_of_one_value(tmp_path: Path):
    labels = [{"object": "carrot & co", "plate": "one"}, {"object": "bread", "plate": "one"}]
    rows = tabulate([(labels[0], True, False), (labels[1], False, False), (labels[1], True, True)])
    strata = {key: [vars(row) for row in found] for key, found in rows.items()}
    write_evaluation(tmp_path, "rl", [True, False, True], strata=strata, macro={"object": 0.75, "plate": 2 / 3})
    page = page_of(tmp_path)
    assert "by object; the mean of the rows is 75.0 %" in page
    assert "carrot &amp; co" in page
    assert "by plate" not in page


def write_suite(directory: Path, **changes: object) -> None:
    for name, outcomes, protocol in (("train", [True, True], {}), ("tables", [True, False], {"env_id": "Other-v1"})):
        write_evaluation(directory / "suites" / "rl", name, outcomes, protocol)
    results = {name: read_stage(directory / "suites" / "rl", f"eval_{name}") for name in ("train", "tables")}
    table = make_table("rl", "ood", "f" * 64, [("train", "in_distribution"), ("tables", "vision")], results)
    write_stage(directory, "eval_suite_rl", replace(table, **changes).to_dict())


def test_a_suite_is_a_table_of_its_own_and_no_evaluation(tmp_path: Path):
    write_suite(tmp_path)
    run = read_run(tmp_path)
    assert list(run.evaluations) == []
    assert list(run.suites) == ["rl"]
    page = page_of(tmp_path)
    assert "Out of distribution" in page
    assert "-50.0 [" in page
    assert "Not comparable" not in page
    assert read_stage(tmp_path, "summary")["suites"] == {"rl": {"in_distribution": 1.0, "vision": 0.5}}


def test_a_suite_of_unlike_members_says_so(tmp_path: Path):
    write_suite(tmp_path, unequal={"num_steps": ["4", "10"]})
    page = page_of(tmp_path)
    assert "Not comparable" in page
    assert "num_steps: 4, 10" in page


def test_a_damaged_suite_is_named(tmp_path: Path):
    write_stage(tmp_path, "eval_suite_rl", {"rows": []})
    with pytest.raises(RunFileError, match=r"eval_suite_rl\.json:1: lacks suite, groups, unequal"):
        read_run(tmp_path)
