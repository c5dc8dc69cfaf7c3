"""What a stage sets before torch is loaded."""

import os
import subprocess
import sys

import pytest

from rlft.config.load import load
from rlft.waiting import SPINNING, wait_asleep

GPU = ("model.device=cuda:0",)


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in SPINNING:
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("overrides", "users", "then"),
    [
        ((), {}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ((), {"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ((), {"GOMP_SPINCOUNT": "100"}, {"GOMP_SPINCOUNT": "100"}),
        (GPU, {}, {}),
    ],
)
def test_threads_sleep_on_the_cpu_unless_the_user_says_otherwise(monkeypatch, overrides, users, then):
    for name, value in users.items():
        monkeypatch.setenv(name, value)
    wait_asleep(load("train_sft", ["task=toy", *overrides]))
    assert {name: os.environ[name] for name in SPINNING if name in os.environ} == then


LOOK = """
import sys
from rlft import cli
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
