"""docs/results.md says what the result files say, and nothing else."""

import json

import pytest

from benchmarks.table import number, read_results
from rlft.errors import RlftError
from tools import results

ROW = {"env_id": "PushCube-v1", "collect": {"episodes": 360}, "rl": {"iterations": 90, "env_steps": 1234}}
ROW["evaluations"] = {
    "sft": {"success": 0.25, "ci95": [0.2, 0.3], "episodes": 128},
    "rl": {"success": 0.75, "ci95": [0.7, 0.8], "episodes": 128},
}
ROW |= {"comparison": {"gain_points": 50.0, "p_value": 1e-9, "intervals_apart": True}, "seconds": {"total": 600.0}}
ROW |= {"throughput": {"env_steps_per_s": 400.4}, "command": ["python scripts/train_rl.py"]}
ROW |= {"machine": None, "versions": None}


def test_the_page_is_up_to_date_with_the_kept_files():
    assert results.PAGE.read_text(encoding="utf-8") == results.page(read_results())


def test_every_kept_demo_gains_what_the_demo_promises():
    demos = {name: result for name, result in read_results().items() if name.startswith("demo")}
    assert demos
    for name, result in demos.items():
        assert result["comparison"]["gain_points"] >= 25.0, name
        assert result["comparison"]["intervals_apart"], name
        assert result["comparison"]["differences"] == [], name


def test_rows_are_made_of_the_files_numbers():
    text = results.page({"demo_x": ROW})
    assert "| demo_x | not run | 25.0 % [20.0, 30.0] of 128 | 75.0 % [70.0, 80.0] of 128 | +50.0 points |" in text
    assert "| demo_x | 360 | 90 | 1234 | 400 | 10.0 |" in text


def test_a_resumed_run_claims_no_wall_time():
    text = results.page({"demo_x": ROW | {"command": ["python scripts/train_rl.py resume=auto"]}})
    assert "| 400 | stopped and resumed |" in text


def test_a_run_without_summary_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        results.keep(tmp_path, "x", tmp_path)


BENCH_ROW = {"benchmark": "env_chunk_render", "case": "128 x 128, A = 5", "measure": "ratio", "unit": "steps/s"}
BENCH_ROW |= {"value": 4.3219, "low": 4.1, "high": 4.54, "ours": 203.4, "theirs": 47.06, "pairs": 5}
BENCH_ROW |= {"baseline": "stock", "goal": 4.0, "at_most": False, "met": True, "explanation": ""}
BENCH_ROW |= {"facts": {"workers": 2, "seconds": {"2": 0.27123}}}
MISSED = BENCH_ROW | {"benchmark": "scaling", "value": 1.2, "goal": 1.05, "at_most": True, "met": False, "theirs": None}
BENCH = {
    "command": ["python", "-m", "benchmarks"],
    "git_commit": "abc",
    "quick": False,
    "seconds": 512.3,
    "machine": {"cpu_cores": 2, "cpu": "", "versions": {"torch": "2.11.0"}},
    "benchmarks": {"scaling": {"status": "ok"}, "sft_step": {"status": "stopped"}},
    "rows": [BENCH_ROW, MISSED | {"explanation": "the cores share a cache"}],
}


def test_speed_says_goal_and_verdict_from_the_file():
    text = results.page({"demo_x": ROW, "bench_x": BENCH})
    assert "| 203 | 47.1 | steps/s | ratio 4.32 [4.10, 4.54] | >= 4.00 | met |" in text
    assert "| 203 | - | steps/s | ratio 1.20 [4.10, 4.54] | <= 1.05 | missed |" in text
    assert "- **scaling**, 128 x 128, A = 5: the cores share a cache" in text
    assert "- sft_step: stopped" in text
    assert "workers 2, seconds (2: 0.27)" in text
    assert "cpu_cores 2; torch 2.11.0; commit abc; `python -m benchmarks`, 512 s." in text


def test_without_benchmarks_there_is_no_speed_section():
    assert "## Speed" not in results.page({"demo_x": ROW})


def test_only_whole_explained_benchmarks_are_kept(tmp_path):
    def bench(**changes):
        path = tmp_path / "bench.json"
        path.write_text(json.dumps(BENCH | changes))
        return path

    results.keep_bench(bench(), "bench_cpu", tmp_path / "results")
    assert read_results(tmp_path / "results") == {"bench_cpu": BENCH}
    with pytest.raises(RlftError, match="--quick"):
        results.keep_bench(bench(quick=True), "bench_cpu", tmp_path)
    with pytest.raises(RlftError, match="without an explanation: scaling"):
        results.keep_bench(bench(rows=[MISSED]), "bench_cpu", tmp_path)
    with pytest.raises(RlftError, match="bench_cpu"):
        results.keep_bench(bench(), "cpu", tmp_path)


def test_kept_benchmarks_finished_and_explain_every_missed_goal():
    for name, bench in read_results().items():
        if name.startswith("bench"):
            assert {state["status"] for state in bench["benchmarks"].values()} == {"ok"}, name
            assert all(row["met"] is not False or row["explanation"] for row in bench["rows"]), name
            assert all(row["pairs"] >= 5 or row["goal"] is None for row in bench["rows"]), name


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1234"), (12.34, "12.3"), (1.234, "1.23"), (0.001234, "0.0012"), (0, "0.00"), (None, "-")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text
