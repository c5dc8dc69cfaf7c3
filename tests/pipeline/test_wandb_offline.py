import time

import pytest
from helpers.metrics import read_metrics

from rlft.config.load import load
from rlft.run.tracking import Tracker

pytest.importorskip("wandb")


def test_the_real_wandb_runs_offline_without_a_key(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    cfg = load("train_rl", ["wandb.project=test"])
    with Tracker.open(cfg, tmp_path / "run") as tracker:
        tracker.log("rl", 1, {"kl": 0.5, "loss": float("nan")})
    assert "failed" not in caplog.text
    assert len(read_metrics(tmp_path / "run")) == 1
    stored = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(stored) == 1
    deadline = time.monotonic() + 30.0
    while b"rl/kl" not in stored[0].read_bytes():  # wandb's own writer is another process, and may not be done
        assert time.monotonic() < deadline
        time.sleep(0.1)
