"""What the first screen of a pipeline says about its time."""

import re
import types

import pytest

from benchmarks import estimate


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
