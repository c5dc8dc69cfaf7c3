import json
import math
from pathlib import Path

import pytest
from report_run_builder import make_run, write_evaluation

from rlft.errors import RlftError
from rlft.report.rundir import as_float, read_run


def test_a_whole_run_is_read(tmp_path: Path):
    run = read_run(make_run(tmp_path / "whole"))
    assert run.missing == []
    assert (run.before.label, run.before.successes, run.before.episodes) == ("sft", 8, 20)
    assert (run.after.label, run.after.successes) == ("rl", 16)
    assert [(v.label, v.index) for v in run.videos] == [(label, i) for label in ("rl", "sft") for i in (0, 5, 12)]
    assert [v.success for v in run.videos] == [False, True, True, True, True, False]


def test_evaluations_on_the_way_stand_in_for_missing_ends(tmp_path: Path):
    write_evaluation(tmp_path, "rl_00000", [True] * 4)
    assert read_run(tmp_path).after is None  # the first evaluation alone is no result of PPO
    for iteration, wins in ((9, 2), (10, 3)):
        write_evaluation(tmp_path, f"rl_{iteration:05d}", [i < wins for i in range(4)])
    run = read_run(tmp_path)
    assert (run.before.label, run.after.label) == ("rl_00000", "rl_00010")
    write_evaluation(tmp_path, "sft", [False] * 4)
    write_evaluation(tmp_path, "rl", [True] * 4)
    write_evaluation(tmp_path, "sft_source", [True])
    run = read_run(tmp_path)
    assert (run.before.label, run.after.label) == ("sft", "rl")
    # In the order of training.
    assert list(run.evaluations) == ["sft_source", "sft", "rl_00000", "rl_00009", "rl_00010", "rl"]


def test_an_empty_directory_lists_what_is_missing_and_no_directory_is_an_error(tmp_path: Path):
    stages = ("config.yaml", "metrics.jsonl", "collect.json", "sft.json", "eval_sft.json", "rl.json", "eval_rl.json")
    assert read_run(tmp_path).missing == [*stages, "provenance.jsonl", "videos/"]
    with pytest.raises(NotADirectoryError, match="nowhere: no run directory"):
        read_run(tmp_path / "nowhere")


GOOD_LINE = json.dumps({"time": 1.0, "stage": "rl", "step": 1})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", f'{GOOD_LINE}\n\n{{"time": 1, "st', r"metrics\.jsonl:3: no JSON object.*; delete the line"),
        ("metrics.jsonl", f'{GOOD_LINE}\n{{"time": 1.0, "stage": "rl"}}', r"metrics\.jsonl:2: lacks step; delete"),
        ("metrics.jsonl", "[1, 2]\n", r"metrics\.jsonl:1: no JSON object"),
        ("sft.json", '{\n  "steps": 3,\n  "final_loss": \n}', r"sft\.json: not valid JSON .*line 4.*; run the stage"),
        ("rl.json", "", r"rl\.json: not valid JSON"),
        ("collect.json", '{"failures": {"no_plan": 3}}', r"collect\.json: failures=.* no object of seed lists"),
        ("eval_rl.json", "{}", r"eval_rl\.json: .*protocol: Field required.*eval\.label=rl, or move the file"),
        ("eval_suite_rl.json", '{"suite": "x"}', r"eval_suite_rl\.json: .*rows: Field required.*; run the suite again"),
        ("config.yaml", "a: 1\nb: [1, 2\nc: 3\n", r"(?s)config\.yaml: not YAML.*line 3"),
        ("config.yaml", "- a\n- b\n", r"config\.yaml: holds a list"),
        ("provenance.jsonl", '{"stage": "rl"}\n', r"provenance\.jsonl:1: lacks command"),
    ],
)
def test_a_damaged_file_is_named(name: str, content: str, message: str, tmp_path: Path):
    (tmp_path / name).write_text(content)
    with pytest.raises(RlftError, match=message):
        read_run(tmp_path)


def test_scalars_that_are_not_finite_come_back_from_text():
    assert [as_float(value) for value in ("inf", "-inf", 3)] == [math.inf, -math.inf, 3.0]
    assert math.isnan(as_float("nan"))
    assert math.isnan(as_float(None))
