"""The report shows contact sheets where there are some, and how much was changed."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from report_run_builder import make_run

from rlft.report import build_report
from rlft.report.html import data_url
from rlft.report.randomization import randomization
from rlft.report.rundir import read_run


def with_sheet(directory: Path, stage: str, metrics: str) -> Path:
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(directory / f"randomization_{stage}.png")
    lines = [
        {"time": 1.0, "stage": metrics, "step": i, "randomization/changed_pixels": c, "randomization/mean_change": m}
        for i, (c, m) in enumerate([(0.5, 4.0), (0.75, 8.0)], start=1)
    ]
    with (directory / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return directory


def test_without_sheets_there_is_no_section(tmp_path):
    assert randomization(read_run(make_run(tmp_path / "run"))) is None


def test_the_sheet_and_the_means_are_on_the_page(tmp_path):
    run = with_sheet(make_run(tmp_path / "run"), "rollout", "rl")
    page = build_report(run).html.read_text()
    assert "Picture randomisation" in page
    assert data_url("image/png", (run / "randomization_rollout.png").read_bytes()) in page
    assert "62.5 %" in page
    assert "6.00" in page
    assert "contact sheet of the warm-up" not in page


def test_both_stages_are_shown(tmp_path):
    run = with_sheet(with_sheet(make_run(tmp_path / "run"), "rollout", "rl"), "sft", "sft")
    section = randomization(read_run(run))
    assert section.count("<img ") == 2
    assert section.index("contact sheet of the warm-up") < section.index("contact sheet of the rollouts")
