"""What a stage sets before torch is loaded."""

import os
import subprocess
import sys

import psutil
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


def test_what_others_do_is_seen_on_the_cores_that_are_ours(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2})
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, *, percpu: [80.0, 5.0, 20.0])
    assert busy_share() == 0.5
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7})  # numbered otherwise
    assert busy_share() == 0.35
    monkeypatch.undo()
    assert 0.0 <= busy_share() <= 1.0
