import json
import sys
from pathlib import Path

import numpy as np
import pytest
from report_run_builder import make_run, write_evaluation

from rlft.files import write_stage
from rlft.report.build import summarise
from rlft.report.figures import evaluated_success, logged, rollout_success
from rlft.report.rundir import read_run
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
