"""The GPU benchmark in small: every row is a number or says why not, and survives its file; faults lose none."""

import contextlib
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_env, gpu_model, gpu_rows, gpu_suspects
from benchmarks.gpu_rows import FAILED, MEASURED, NOT_RUN, Check, Found, Row


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """One dry run of everything, through the command; its exit status, file and printed lines."""
    threads, out = torch.get_num_threads(), tmp_path_factory.mktemp("gpu")
    printed, write = [], sys.stdout.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.stdout, "write", lambda text: printed.append(text) or write(text))
        status = gpu.main(["--dry", "--out", str(out)])
    torch.set_num_threads(threads)
    return status, out / "gpu_dry.json", printed


def owed():
    checks = [(part, check) for part, made in gpu.PARTS.items() for check in made.checks(gpu_env.DRY)]
    return [(part, check.name, case) for part, check in checks for case in check.cases]


def test_every_row_is_a_number_or_says_why_not(dry):
    status, path, printed = dry
    result = json.loads(path.read_text())
    rows = [Row.from_json(data) for data in result["rows"]]
    assert [(row.part, row.name, row.case) for row in rows] == owed()
    assert [row for row in rows if row.status == FAILED] == []
    assert status == 0
    for row in rows:
        assert row.note, row
        assert (row.value is not None and math.isfinite(row.value)) == (row.status == MEASURED), row
    assert [row.to_json() for row in rows] == result["rows"]
    assert result["dry"] is True
    lines = [text for text in printed if text.strip()]
    assert len(lines) == len(rows) + 2  # a head, the rows, and where they are


def test_what_a_dry_run_can_know_is_measured(dry):
    rows = {(r["part"], r["name"], r["case"]): r for r in json.loads(dry[1].read_text())["rows"]}
    unknown = {key for key, row in rows.items() if row["status"] == NOT_RUN}
    controllers, unseeded = "partial reset", "reset twice"
    gpus = {"devices", "copy streams", "pinned memory", "overflow", "compile"}
    assert {name for _, name, _ in unknown} == {controllers, unseeded, *gpus}
    assert rows["simulation", "picture kept", "changed numbers"]["verdict"] == "pass"
    assert rows["simulation", "seed to state", "PushCube"]["verdict"] == "pass"
    assert rows["pi0", "bf16 log-ratio", "recomputed"]["verdict"] == "pass"
    assert rows["pi0", "iterations", "iteration 2 over the first"]["value"] == pytest.approx(1.0, abs=0.05)
    for part in ("pi0", "pi05"):
        assert rows[part, "sampler", "B=2"]["facts"]["largest_difference"] < 0.05  # bf16
        for case in ("stored prefix", "recomputed"):
            assert rows[part, "update memory", case]["value"] == pytest.approx(1.0, abs=0.25)


def test_a_dry_run_leaves_the_results_alone(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--dry", "--out", str(gpu.RESULTS)])
    assert "do not belong in benchmarks/results" in capsys.readouterr().err
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit):
            gpu.main([])
        assert "no CUDA device" in capsys.readouterr().err
    assert not list(gpu.RESULTS.glob("gpu_dry*"))


def ran(*checks, budget_s=60.0):
    rows = []
    gpu_rows.run_checks("part", checks, None, rows.append, budget_s=budget_s)
    return [(row.case, row.status, row.value, row.note) for row in rows]


def test_a_failing_check_keeps_its_rows_and_the_others_run():
    def broken(_):
        yield Found("a", 1.0, "x", "fine")
        raise ValueError("the wheel\ncame off")

    def short(_):
        yield Found("c", None, "", "no wheel")

    assert ran(Check("one", ("a", "b"), broken), Check("two", ("c", "d"), short)) == [
        ("a", MEASURED, 1.0, "fine"),
        ("b", FAILED, None, "ValueError: the wheel came off"),
        ("c", NOT_RUN, None, "no wheel"),
        ("d", FAILED, None, "the check ended without it"),
    ]


def test_a_check_that_hangs_is_stopped_even_where_exceptions_are_swallowed():
    def endless(_):
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)
        yield

    started = time.monotonic()
    assert ran(Check("one", ("a",), endless, limit_s=0.2)) == [("a", FAILED, None, "stopped after 0 s")]
    assert ran(Check("one", ("a",), endless), budget_s=1.0) == [("a", NOT_RUN, None, "the budget of 1 s is spent")]
    assert time.monotonic() - started < 10.0


PART = """
import json, os, signal, sys, time
rows = open(sys.argv[1], "a")
put = lambda **data: (rows.write(json.dumps(data) + "\\n"), rows.flush())
put(device={"name": "Fake GPU 80GB"}, owed=[("check", "a"), ("check", "b")])
put(part="part", name="check", case="a", status="measured", value=1.0, unit="x", seconds=0.0, note="n")
print("Segmentation fault, or so", flush=True)
"""


@pytest.mark.parametrize(
    ("end", "reason"),
    [("os.kill(os.getpid(), signal.SIGKILL)", "ended with status -9"), ("time.sleep(60)", "the part's 5 s were over")],
)
def test_a_part_that_dies_or_hangs_owes_its_rows(end, reason, tmp_path, monkeypatch):
    real = subprocess.Popen

    def popen(words, **kwargs):
        return real([sys.executable, "-c", PART + end, words[words.index("--rows") + 1]], **kwargs)

    monkeypatch.setattr(gpu.subprocess, "Popen", popen)
    table = gpu.Table(tmp_path, {"device": {"name": "unknown"}})
    gpu.run_apart("part", gpu_env.DRY, table, 5.0)
    assert [(row.case, row.status) for row in table.rows] == [("a", MEASURED), ("b", FAILED)]
    assert reason in table.rows[1].note
    assert "Segmentation fault" in table.rows[1].note
    assert table.path == tmp_path / "gpu_fake_gpu_80gb.json"
    assert len(json.loads(table.path.read_text())["rows"]) == 2


def test_a_part_runs_in_its_own_process(tmp_path):
    table = gpu.Table(tmp_path, {"device": {"name": "unknown"}})
    gpu.run_apart("overflow", gpu_env.DRY, table, 120.0)
    assert [(row.name, row.status) for row in table.rows] == [("overflow", NOT_RUN)]
    assert [path.name for path in tmp_path.iterdir()] == ["gpu_dry.json"]


def test_without_a_simulator_the_rows_say_so(monkeypatch):
    from benchmarks import gpu_sim, gpu_simulator

    monkeypatch.setattr(gpu_simulator.importlib.util, "find_spec", lambda name: None)
    rows, real = [], gpu_env.REAL
    checks = [*gpu_sim.checks(real), *gpu_sim.overflow_checks()]
    gpu_rows.run_checks("simulation", checks, gpu_simulator.Sim(real), rows.append, budget_s=60)
    assert len(rows) == sum(len(check.cases) for check in checks)
    assert {row.note for row in rows} == {"no simulator here: mani_skill, sapien not installed"}


def test_reads_and_memory_are_counted():
    cpu, x = torch.device("cpu"), torch.ones(3)
    assert gpu_suspects.reads(cpu, lambda: (float(x[0]), x.sum().item(), x + 1)) == 2
    before = gpu_suspects.held_bytes(cpu)
    kept = torch.zeros(10_000_000)
    assert gpu_suspects.held_bytes(cpu) - before == pytest.approx(kept.nbytes, rel=0.01)


def test_horizons_and_cameras_share_the_weights():
    models = gpu_model.Models(gpu_env.DRY, "pi0")
    a, b = (models.policy(models.settings(*sizes)) for sizes in ((10, 2), (5, 1)))
    assert a.model is b.model
    assert (b.horizon, b.cameras) == (5, ("camera_0",))
    assert next(b.parameters()).dtype == torch.bfloat16
    folder = Path(models._tokenizer)
    assert folder.is_dir()
    del models
    assert not folder.exists()
