"""The benchmark harness: what it claims follows from what it measured, and nothing is lost when a benchmark fails."""

import importlib
import json
import math
import re
import sys
import types

import pytest

from benchmarks import __main__ as command
from benchmarks import child, estimate, harness


def test_a_ratio_is_the_median_of_the_pairs_ratios():
    pairs = harness.Pairs([10.0, 30.0, 20.0], [10.0, 10.0, 10.0])
    row = pairs.row("b", "c", unit="steps/s", baseline="stock", goal=2.0)
    assert (row.value, row.low, row.high, row.ours, row.theirs, row.pairs) == (2.0, 1.0, 3.0, 20.0, 10.0, 3)
    assert harness.Pairs([1.0, 4.0, 9.0], [1.0, 8.0, 3.0]).row("b", "c", unit="", baseline="").value == 1.0


@pytest.mark.parametrize(
    ("value", "goal", "at_most", "met"),
    [
        *((4.0, 4.0, False, True), (3.99, 4.0, False, False), (1.05, 1.05, True, True), (1.06, 1.05, True, False)),
        *((1.0, None, False, None), (math.nan, 1.0, False, False), (math.nan, 1.0, True, False)),
    ],
)
def test_a_goal_is_met_on_the_right_side(value, goal, at_most, met):
    row = harness.Row("b", "c", "m", value, value, value, 1.0, None, "s", "", 1, goal, at_most)
    assert row.met is met
    assert row.to_json()["met"] is met


def test_sides_alternate_and_each_goes_first_in_turn():
    calls = []

    def side(name):
        def work():
            calls.append(name)
            return 1.0

        return work

    pairs = harness.alternate(side("ours"), side("theirs"), pairs=3, warm_up=1)
    assert calls == ["ours", "theirs", "ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert len(pairs.ours) == len(pairs.theirs) == 3
    with pytest.raises(ValueError, match="at least 1"):
        harness.alternate(side("ours"), side("theirs"), pairs=0)


def test_a_rate_counts_what_the_work_reports(monkeypatch):
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(clock))
    assert harness.rate(lambda: 6.0) == 3.0


def test_the_exponent_of_a_power_law_is_found():
    sizes = [2, 4, 8, 16]
    assert harness.exponent(sizes, [0.3 * size**1.2 for size in sizes]) == pytest.approx(1.2)
    with pytest.raises(ValueError, match="two different sizes"):
        harness.exponent([2, 2], [1.0, 1.0])


FAKES = {
    "good": "def run(settings):\n    yield row(3.0)\n    yield row(1.0)\n",
    "broken": "def run(settings):\n    yield row(5.0)\n    raise RuntimeError('the wheel came off')\n",
    "endless": "import time\nBUDGET_S = 3\ndef run(settings):\n    yield row(6.0)\n    time.sleep(60)\n",
}
FAKE_HEAD = """from benchmarks.harness import Pairs
BUDGET_S = 60
def row(ratio):
    name, more = __name__.split('.')[1], dict(goal=2.0, explanation='because')
    return Pairs([ratio], [1.0]).row(name, 'tiny', unit='x/s', baseline='none', **more)
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Benchmarks that take no time, in a copy of the package's own path."""
    for name, text in FAKES.items():
        (tmp_path / f"{name}.py").write_text(FAKE_HEAD + text)
    package = importlib.import_module("benchmarks")
    start = f"import benchmarks; benchmarks.__path__.append({str(tmp_path)!r}); import benchmarks.__main__ as m; "
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr(command, "NAMES", tuple(FAKES))
    monkeypatch.setattr(command, "slowness", lambda: (1.5, 1.0))
    real = child.subprocess.Popen

    def popen(words, **kwargs):
        code = f"{start} m.NAMES = {tuple(FAKES)!r}; import sys; sys.exit(m.main(sys.argv[1:]))"
        return real([sys.executable, "-c", code, *words[3:]], **kwargs)

    monkeypatch.setattr(child, "subprocess", types.SimpleNamespace(**{**vars(child.subprocess), "Popen": popen}))
    yield
    for name in FAKES:
        sys.modules.pop(f"benchmarks.{name}", None)


def test_failures_are_said_the_others_run_and_no_row_is_lost(fakes, tmp_path, capsys):
    assert command.main(["endless", "broken", "good", "--out", str(tmp_path / "out"), "--quick"]) == 1
    result = json.loads((tmp_path / "out" / "bench.json").read_text())
    states = {name: state["status"] for name, state in result["benchmarks"].items()}
    assert states == {"endless": "stopped", "broken": "failed", "good": "ok"}
    assert (result["slowness"], result["benchmarks"]["endless"]["budget_s"]) == (1.5, 4.5)
    assert "its 4 s were over" in result["benchmarks"]["endless"]["error"]
    assert "the wheel came off" in result["benchmarks"]["broken"]["error"]
    rows = [(row["benchmark"], row["value"]) for row in result["rows"]]
    assert rows == [("endless", 6.0), ("broken", 5.0), ("good", 3.0), ("good", 1.0)]
    assert result["quick"] is True
    assert {"versions", "cpu_cores", "cpu"} <= set(result["machine"])
    captured = capsys.readouterr()
    assert "1.5 times as long as the reference" in captured.err
    printed = captured.out
    assert "broken: FAILED" in printed
    assert "endless: STOPPED" in printed
    assert "good, tiny: because" in printed
    assert "3 of 4 goals met" in printed


def test_a_fast_machine_keeps_its_budgets(fakes, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "slowness", lambda: (0.4, 0.4))
    assert command.main(["good", "--out", str(tmp_path / "out"), "--quick"]) == 0  # a goal is missed, and said so
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["benchmarks"]["good"]["budget_s"] == 60.0


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["nothing"])
    assert "no benchmark is called nothing; there are: " in capsys.readouterr().err


def test_a_machine_is_as_slow_as_the_median_of_what_work_takes(monkeypatch):
    wall, processor, waits = [0.0], [0.0], iter([100.0, 0.0, 9.0, 1.0])  # the first is not counted
    monkeypatch.setattr(harness.time, "perf_counter", lambda: wall[0])
    monkeypatch.setattr(harness.time, "process_time", lambda: processor[0])

    def work():
        wall[0] += harness.CALIBRATION_S * (2.5 + next(waits))
        processor[0] += harness.CALIBRATION_S * 2.5

    assert harness.slowness(work, rounds=3) == pytest.approx((3.5, 2.5))


def test_the_calibration_takes_time_but_not_long():
    rate = harness.rate(lambda: harness.calibration_work() or 1.0)
    assert 0.01 < 1.0 / rate < 60.0


def test_all_budgets_together_keep_the_promise_of_twelve_minutes():
    budgets = {name: importlib.import_module(f"benchmarks.{name}").BUDGET_S for name in command.NAMES}
    assert sum(budgets.values()) <= 720, budgets


def test_preparation_comes_before_every_measured_work_and_is_not_timed(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(harness.time, "perf_counter", lambda: now[0])

    def spend(name, seconds):
        def work():
            calls.append(name)
            now[0] += seconds
            return 6.0

        return work

    rates = harness.in_turns({"a": spend("a", 2), "b": spend("b", 3)}, 2, warm_up=0, before=spend("reset", 100))
    assert rates == {"a": [3.0, 3.0], "b": [2.0, 2.0]}
    assert calls == ["reset", "a", "reset", "b", "reset", "b", "reset", "a"]


def run(seconds, *words):
    return {"seconds": {"total": seconds}, "command": ["python scripts/train_rl.py seed=0", *words]}


def test_the_range_follows_the_kept_runs_and_the_machine():
    runs = {"a": run(600), "b": run(900), "c": run(60, "python scripts/train_rl.py resume=auto")}
    assert estimate.minutes(runs, 1.0) == pytest.approx((10.0, 15.0 * estimate.MARGIN))
    assert estimate.minutes(runs, 2.5) == pytest.approx((25.0, 37.5 * estimate.MARGIN))
    with pytest.raises(ValueError, match="is a whole run"):
        estimate.minutes({"c": runs["c"]}, 1.0)


class Pool:
    """Measures in this process, and counts."""

    def __init__(self, cores):
        self.cores = cores

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def map(self, _, numbers, chunksize):
        assert len(numbers) == self.cores
        return [(4.0, 1.0), (3.0, 1.5)][: self.cores]


@pytest.mark.parametrize(("cores", "expected"), [(1, 2.0), (2, 1.5), (8, 1.5)])
def test_all_cores_of_a_run_are_measured_at_once_and_fewer_take_longer(monkeypatch, cores, expected):
    monkeypatch.setattr(estimate.os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(estimate.multiprocessing, "get_context", lambda _: types.SimpleNamespace(Pool=Pool))
    assert estimate.measure() == (expected, 4.0)


@pytest.mark.parametrize("name", ["demo", "put_on_plate"])
def test_every_pipeline_has_runs_to_estimate_from(monkeypatch, capsys, name):
    monkeypatch.setattr(estimate, "measure", lambda: (1.5, 1.0))
    assert estimate.main([name]) == 0
    said = re.search(r"expect (\d+) to (\d+) minutes: work takes 1\.5 times", capsys.readouterr().err)
    low, high = map(int, said.groups())
    assert 0 < low < high


def test_a_busy_machine_is_mentioned(monkeypatch, capsys):
    for waiting in (1.1, 3.0):
        monkeypatch.setattr(estimate, "measure", lambda waiting=waiting: (1.0, waiting))
        estimate.main(["demo"])
        assert ("longer, while other programs let it wait" in capsys.readouterr().err) is (waiting == 3.0)
