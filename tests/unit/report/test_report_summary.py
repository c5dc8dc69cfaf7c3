import json
from pathlib import Path

import numpy as np
import pytest
from report_run_builder import make_run, write_evaluation

from rlft.files import write_stage
from rlft.report.evalfiles import Episode, Evaluation
from rlft.report.provenance import describe, git_commit, record_command
from rlft.report.rundir import read_run
from rlft.report.series import evaluated_success, logged, rollout_success
from rlft.report.statistics import PairedOutcome
from rlft.report.summary import comparison, paired_outcomes, summarise


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "whole")


def wilson_by_root_finding(wins: int, trials: int) -> tuple[float, float]:
    """The two rates that the observed one is 1.96 standard errors away from, by bisection."""
    z = 1.959963984540054

    def distance(p: float) -> float:
        return abs(wins / trials - p) / max(1e-12, np.sqrt(p * (1 - p) / trials)) - z

    ends = []
    for inside, outside in ((wins / trials, 0.0), (wins / trials, 1.0)):
        a, b = inside, outside
        for _ in range(80):
            middle = (a + b) / 2
            a, b = (middle, b) if distance(middle) < 0 else (a, middle)
        ends.append((a + b) / 2)
    return ends[0], ends[1]


def test_numbers_equal_an_independent_computation(whole_run: Path):
    summary = summarise(read_run(whole_run))
    assert (summary["env_id"], summary["seed"]) == ("PushCube-v1", 3)
    assert summary["cameras"] == [{"name": "base_camera", "height": 56, "width": 64}]
    assert summary["policy"]["parameters"] == 394_000
    assert summary["collect"] == {
        "episodes": 90,
        "attempts": 100,
        "success_rate": 0.9,
        "seconds": 40.0,
        "lengths": {"mean": 21.5, "min": 16, "max": 40},
        "longer_than_limit": 4,
        "failures": {"no_plan": 3, "executed_but_failed": 7},
    }
    assert (summary["sft"]["steps"], summary["sft"]["final_loss"], summary["sft"]["success"]) == (800, 0.08, 0.4)
    assert (summary["rl"]["iterations"], summary["rl"]["env_steps"], summary["rl"]["success"]) == (8, 12_800, 0.8)
    assert summary["sft"]["ci95"] == pytest.approx(wilson_by_root_finding(8, 20), abs=1e-9)
    assert summary["rl"]["ci95"] == pytest.approx(wilson_by_root_finding(16, 20), abs=1e-9)
    assert summary["throughput"] == {"env_steps_per_s": 131.5, "samples_per_s_update": 900.0}
    assert summary["seconds"] == {
        "collect": 40.0,
        "sft": 60.0,
        "rl": 200.5,
        "eval_sft": 12.5,
        "eval_rl": 12.5,
        "total": 325.5,
    }


def test_episodes_that_share_a_seed_are_all_counted():
    """Seeds are 31 bits of a hash: among 100,000 episodes some are equal."""
    seeds = (7, 7, 8)
    before, after = (
        Evaluation(label, tuple(map(Episode, seeds, won, (9, 9, 9))), {}, "same", {})
        for label, won in (("sft", (True, False, False)), ("rl", (True, True, False)))
    )
    assert paired_outcomes(before, after) == PairedOutcome(both=1, gained=1, lost=0, neither=1)


def test_before_and_after_are_paired_by_episode(whole_run: Path):
    compared = comparison(read_run(whole_run))
    # Before: episodes 0..7 succeed; after: all but 0, 1, 18, 19.
    assert {key: compared[key] for key in ("both", "gained", "lost", "neither", "pairs")} == {
        "both": 6,
        "gained": 10,
        "lost": 2,
        "neither": 2,
        "pairs": 20,
    }
    # Twice the chance of at most two heads in twelve throws: 1, 12 and 66 of 4096 sequences.
    assert compared["p_value"] == pytest.approx(2 * (1 + 12 + 66) / 4096)
    assert compared["gain_points"] == pytest.approx(40.0)
    assert compared["intervals_apart"] is False
    assert compared["differences"] == []


def test_evaluations_of_other_protocols_are_told_and_not_compared(tmp_path: Path):
    write_evaluation(tmp_path, "sft", [False] * 100)
    write_evaluation(tmp_path, "rl", [True] * 101, {"max_episode_steps": 80, "env_id": "PickCube-v1"})
    compared = comparison(read_run(tmp_path))
    assert compared["differences"] == [
        "env_id: PushCube-v1 before, PickCube-v1 after",
        "max_episode_steps: 50 before, 80 after",
        "episodes: 100 before, 101 after",
    ]
    results = {key: value for key, value in compared.items() if key not in ("before", "after", "differences")}
    assert "p_value" in results
    assert set(results.values()) == {None}


def test_the_hash_of_the_protocol_decides_and_not_the_settings_that_were_not_looked_at(tmp_path: Path):
    write_evaluation(tmp_path, "sft", [False, True])
    write_evaluation(tmp_path, "rl", [True, True], {"make_kwargs": '{"obj_set":"test"}'})
    run = read_run(tmp_path)
    assert run.before.protocol_hash != run.after.protocol_hash
    assert comparison(run)["differences"] == ['make_kwargs: {} before, {"obj_set":"test"} after']


def test_evaluations_within_ppo_are_not_counted_twice_in_the_time(tmp_path: Path):
    for label in ("sft_source", "sft", "rl_00010", "rl"):
        write_evaluation(tmp_path, label, [True, False])
    write_stage(tmp_path, "rl", {"iterations": 20, "env_steps": 100, "seconds": 90.0})
    lines = [{"time": 1.0, "stage": "eval", "step": step, "success": 0.5} for step in (10, 20)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    # Iteration 0 was skipped, so the warm-up was evaluated by a command of its own; iteration 20 was the last.
    assert summarise(read_run(tmp_path))["seconds"] == {
        "rl": 90.0,
        "eval_sft_source": 12.5,
        "eval_sft": 12.5,
        "total": 115.0,
    }


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
    expected = [wilson_by_root_finding(round(20 * p), 20) for p in (0.1, 0.2, 0.4, 0.6, 0.7, 0.9)]
    seen = np.isfinite(success.values)
    np.testing.assert_allclose(np.stack([success.low, success.high], -1)[seen], expected, atol=1e-9)
    assert np.isnan(success.low[~seen]).all()
    assert logged(run, "rl", "no such scalar").empty
    assert logged(run, "no such stage", "loss").empty


def test_evaluated_success_joins_files_and_lines(whole_run: Path):
    curve = evaluated_success(read_run(whole_run))
    assert curve.steps.tolist() == [0, 4, 8]
    np.testing.assert_allclose(curve.values, [0.4, 0.5, 0.8])
    assert np.all(curve.low < curve.values)
    assert np.all(curve.values < curve.high)


def test_commands_are_ready_for_a_shell_and_repeated_ones_stand_once(whole_run: Path):
    summary = summarise(read_run(whole_run))
    assert summary["command"] == [
        "python scripts/train_sft.py 'env.instruction=a b'",
        "python scripts/train_rl.py seed=3",
    ]
    assert (summary["git_commit"], summary["versions"]["torch"]) == ("0123abc", "2.11.0")


def test_recorded_commands_come_back(tmp_path: Path):
    record_command(tmp_path / "run", "sft", ["python", "a script.py"])
    record_command(tmp_path / "run", "rl", ["python", "b.py", "x=[1, 2]"])
    summary = summarise(read_run(tmp_path / "run"))
    assert summary["command"] == ["python 'a script.py'", "python b.py 'x=[1, 2]'"]
    assert summary["versions"]["python"].startswith("3.")
    assert summary["machine"]["cpu_cores"] >= 1
    assert summary["machine"]["memory_gib"] > 0


def test_a_file_that_git_does_not_track_has_no_commit(tmp_path: Path):
    stray = tmp_path / "module.py"
    stray.write_text("")
    assert git_commit(stray) is None
    assert describe("rl", ["python"])["stage"] == "rl"
