"""docs/results.md says what the result files say, and nothing else."""

import pytest

from rlft.report import results

ROW = {
    "env_id": "PushCube-v1",
    "collect": {"episodes": 360},
    "rl": {"iterations": 90, "env_steps": 1234},
    "evaluations": {
        "sft": {"success": 0.25, "ci95": [0.2, 0.3], "episodes": 128},
        "rl": {"success": 0.75, "ci95": [0.7, 0.8], "episodes": 128},
    },
    "comparison": {"gain_points": 50.0, "p_value": 1e-9, "intervals_apart": True},
    "throughput": {"env_steps_per_s": 400.4},
    "seconds": {"total": 600.0},
    "command": ["python scripts/train_rl.py"],
}


def test_the_page_is_up_to_date_with_the_kept_files():
    assert results.PAGE.read_text(encoding="utf-8") == results.page(results.read_results())


def test_every_kept_demo_gains_what_the_demo_promises():
    demos = {name: result for name, result in results.read_results().items() if name.startswith("demo")}
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
