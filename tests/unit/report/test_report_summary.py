import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from report_run_builder import make_run, write_evaluation

from rlft.errors import RlftError
from rlft.files import write_stage
from rlft.report.build import summarise
from rlft.report.figures import evaluated_success, logged, rollout_success
from rlft.report.rundir import as_float, read_run
from rlft.run.provenance import git_commit, record_command
from rlft.statistics import wilson_interval


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "whole")


def test_the_summary_says_what_the_files_say(whole_run: Path):
    summary = summarise(read_run(whole_run))
    assert (summary["env_id"], summary["seed"]) == ("PushCube-v1", 3)
    assert summary["cameras"] == [{"name": "base_camera", "height": 56, "width": 64}]
    assert summary["policy"]["parameters"] == 394_000
    assert summary["collect"]["lengths"] == {"mean": 21.5, "min": 16, "max": 40}
    assert summary["collect"]["failures"] == {"no_plan": 3, "executed_but_failed": 7}
    assert (summary["sft"]["steps"], summary["sft"]["final_loss"], summary["sft"]["success"]) == (800, 0.08, 0.4)
    assert (summary["rl"]["iterations"], summary["rl"]["env_steps"], summary["rl"]["success"]) == (8, 12_800, 0.8)
    assert (summary["sft"]["ci95"], summary["rl"]["ci95"]) == (wilson_interval(8, 20), wilson_interval(16, 20))
    assert (summary["comparison"]["gained"], summary["comparison"]["lost"]) == (10, 2)
    assert summary["throughput"] == {"env_steps_per_s": 131.5, "samples_per_s_update": 900.0}
    stages = {"collect": 40.0, "sft": 60.0, "rl": 200.5, "eval_sft": 12.5, "eval_rl": 12.5}
    assert summary["seconds"] == stages | {"total": 325.5}
    commands = ["python scripts/train_sft.py 'env.instruction=a b'", "python scripts/train_rl.py seed=3"]
    assert summary["command"] == commands  # ready for a shell, repeated ones once
    assert (summary["git_commit"], summary["versions"]["torch"]) == ("0123abc", "2.11.0")


def test_evaluations_within_ppo_are_not_counted_twice_in_the_time(tmp_path: Path):
    for label in ("sft_source", "sft", "rl_00010", "rl"):
        write_evaluation(tmp_path, label, [True, False])
    write_stage(tmp_path, "rl", {"iterations": 20, "env_steps": 100, "seconds": 90.0})
    lines = [{"time": 1.0, "stage": "eval", "step": step, "success": 0.5} for step in (10, 20)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    # Iteration 0 was skipped, so SFT's policy was evaluated by a command of its own; iteration 20 was the last.
    stages = {"rl": 90.0, "eval_sft_source": 12.5, "eval_sft": 12.5}
    assert summarise(read_run(tmp_path))["seconds"] == stages | {"total": 115.0}


def test_the_summary_of_nothing_is_still_a_summary(tmp_path: Path):
    summary = summarise(read_run(tmp_path))
    assert summary["sft"] is summary["rl"] is summary["collect"] is summary["comparison"] is None
    assert summary["seconds"] == {"total": 0}
    assert json.loads(json.dumps(summary)) == summary


def test_curves_keep_gaps_and_take_the_last_of_a_repeated_step(whole_run: Path):
    run = read_run(whole_run)
    success = rollout_success(run)
    assert success.steps.tolist() == [1, 2, 4, 5, 6, 7, 8]
    np.testing.assert_allclose(success.values, [0.1, 0.2, 0.4, np.nan, 0.6, 0.7, 0.9])
    ends = [wilson_interval(round(20 * p), 20) if p else (np.nan, np.nan) for p in (0.1, 0.2, 0.4, 0, 0.6, 0.7, 0.9)]
    np.testing.assert_allclose(np.stack([success.low, success.high], -1), ends)
    assert logged(run, "rl", "no such scalar").empty
    assert logged(run, "no such stage", "loss").empty
    curve = evaluated_success(run)  # joins files and lines
    assert curve.steps.tolist() == [0, 4, 8]
    np.testing.assert_allclose(curve.values, [0.4, 0.5, 0.8])
    assert np.all(curve.low < curve.values)
    assert np.all(curve.values < curve.high)


def test_recorded_commands_come_back(tmp_path: Path, monkeypatch):
    for words in (["a script.py"], ["/x/rlft/__main__.py", "train-rl", "x=[1, 2]"]):
        monkeypatch.setattr(sys, "argv", words)
        record_command(tmp_path / "run", "rl")
    summary = summarise(read_run(tmp_path / "run"))
    assert summary["command"] == ["python 'a script.py'", "python -m rlft train-rl 'x=[1, 2]'"]
    assert summary["versions"]["python"].startswith("3.")
    assert summary["machine"]["cpu_cores"] >= 1
    assert summary["machine"]["memory_gib"] > 0
    assert git_commit(tmp_path / "run" / "provenance.jsonl") is None  # git does not track it


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
