"""What a stage sets before torch is loaded."""

import os
import subprocess
import sys

import pytest

from rlft import waiting
from rlft.config.load import load
from rlft.waiting import ASLEEP, SPINNING, busy_share, choose_waiting

GPU = ("model.device=cuda:0",)


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in SPINNING:
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("overrides", "busy", "users", "then"),
    [
        ((), 0.9, {}, ASLEEP),
        ((), 0.1, {}, {}),
        ((), 0.9, {"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ((), 0.9, {"GOMP_SPINCOUNT": "100"}, {"GOMP_SPINCOUNT": "100"}),
        (GPU, 0.9, {}, {}),
    ],
)
def test_threads_wait_on_the_cpu_as_the_machine_asks_unless_the_user_says_otherwise(
    monkeypatch, overrides, busy, users, then
):
    monkeypatch.setattr(waiting, "busy_share", lambda: busy)
    for name, value in users.items():
        monkeypatch.setenv(name, value)
    choose_waiting(load("train_sft", ["task=toy", *overrides]))
    assert {name: os.environ[name] for name in SPINNING if name in os.environ} == then


LOOK = """
import sys
from rlft import cli, waiting
waiting.busy_share = lambda: 0.9
def run(cfg):
    assert "torch" not in sys.modules, "too late: libgomp has read it already"
    import torch
    assert torch.ones(3).sum() == 3
sys.exit(cli.main("train_sft", run, None, ["task=toy"]))
"""


def test_a_stage_says_so_before_libgomp_is_loaded():
    """libgomp prints what it has read when it is loaded."""
    environment = {name: value for name, value in os.environ.items() if name not in SPINNING}
    words = [sys.executable, "-c", LOOK]
    done = subprocess.run(words, env=environment | {"OMP_DISPLAY_ENV": "true"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


def test_what_others_do_is_seen(monkeypatch, tmp_path):
    """The second look at a made-up /proc/stat: of two cores one worked, and waiting for a disk is no work."""
    stat = tmp_path / "stat"
    looks = iter([(0, 0, 0, 0), (20, 0, 0, 20)])

    def text():
        busy0, disk0, busy1, idle1 = next(looks)
        return f"cpu 1 1 1 1\ncpu0 {busy0} 0 0 {20 - busy0 if busy0 else 0} {disk0} 0 0 0 0 0\ncpu1 {busy1} 0 0 {idle1}"

    monkeypatch.setattr(waiting, "LOOK_S", 0.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(waiting, "STAT", stat)
    stat.write_text("")
    monkeypatch.setattr(type(stat), "read_text", lambda *_, **__: text() + " 0 0 0 0 0 0")
    assert busy_share() == 0.5
    monkeypatch.setattr(waiting, "STAT", tmp_path / "not there")
    assert busy_share() == 0.0
