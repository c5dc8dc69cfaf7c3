import json
import logging
import math
import sys
import types

import pytest
from helpers.metrics import read_metrics

from rlft.config.load import load
from rlft.config.schema import WandbConfig
from rlft.run import tracking
from rlft.run.tracking import Tracker, start_wandb, wandb_mode


class Remote:
    """Stands for a wandb run; fails where it is told to."""

    def __init__(self, fail_at: str = ""):
        self.fail_at, self.logged, self.calls, self.finished = fail_at, [], 0, False

    def log(self, values):
        self.calls += 1
        if self.fail_at == "log":
            raise ConnectionError("no route")
        if self.fail_at == "interrupt":
            raise KeyboardInterrupt
        self.logged.append(values)

    def finish(self):
        if self.fail_at == "finish":
            raise TimeoutError("upload stalls")
        self.finished = True


def test_every_line_is_on_disk_at_once_and_valid_json(tmp_path):
    tracker = Tracker(tmp_path / "run")
    tracker.log("rl", 1, {"loss": 1.5, "kl": math.nan, "up": math.inf, "down": -math.inf})
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert line.items() >= {"stage": "rl", "step": 1, "loss": 1.5, "kl": "nan", "up": "inf", "down": "-inf"}.items()
    back = read_metrics(tmp_path / "run")[0]
    assert math.isnan(back["kl"])
    assert (back["up"], back["down"]) == (math.inf, -math.inf)
    tracker.close()
    tracker.close()


def test_names_of_the_line_itself_are_refused(tmp_path):
    with Tracker(tmp_path) as tracker, pytest.raises(ValueError, match="step"):
        tracker.log("rl", 1, {"step": 1.0})


def test_resuming_drops_what_lies_beyond_and_nothing_else(tmp_path):
    with Tracker(tmp_path) as tracker:
        for step in (1, 2, 3):
            tracker.log("sft", step, {"loss": step})
        for step in (1, 2, 3):
            tracker.log("rl", step, {"kl": step})
    with Tracker(tmp_path) as tracker:
        assert tracker.drop_after("rl", 2) == 1
        tracker.log("rl", 3, {"kl": 30.0})
    seen = [(x["stage"], x["step"]) for x in read_metrics(tmp_path)]
    assert seen == [("sft", 1), ("sft", 2), ("sft", 3), ("rl", 1), ("rl", 2), ("rl", 3)]
    assert read_metrics(tmp_path)[-1]["kl"] == 30.0


def test_an_unfinished_last_line_is_cut_off(tmp_path, caplog):
    with Tracker(tmp_path) as tracker:
        tracker.log("rl", 1, {"kl": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"time": 1, "sta')
    with Tracker(tmp_path) as tracker:
        tracker.log("rl", 2, {"kl": 2.0})
    assert [x["step"] for x in read_metrics(tmp_path)] == [1, 2]
    assert "unfinished" in caplog.text


def test_opening_writes_the_resolved_settings(tmp_path):
    cfg = load("train_rl", ["seed=5"])
    Tracker.open(cfg, tmp_path).close()
    assert load("train_rl", config_dir=tmp_path, config_name="config") == cfg
    assert read_metrics(tmp_path) == []


def test_scalars_reach_wandb_with_their_stage(tmp_path):
    remote = Remote()
    with Tracker(tmp_path, remote) as tracker:
        tracker.log("rl", 4, {"kl": 0.5})
    assert remote.logged == [{"rl/step": 4, "rl/kl": 0.5}]
    assert remote.finished


@pytest.mark.parametrize(("fails_at", "said"), [("log", "ConnectionError: no route"), ("finish", "failed to finish")])
def test_a_failing_wandb_gives_one_warning_and_stops_nothing(tmp_path, caplog, fails_at, said):
    remote = Remote(fails_at)
    with caplog.at_level(logging.WARNING), Tracker(tmp_path, remote) as tracker:
        for step in range(5):
            tracker.log("rl", step, {"kl": 0.5})
    assert remote.calls == (1 if fails_at == "log" else 5)
    assert len(caplog.records) == 1
    assert said in caplog.text
    assert len(read_metrics(tmp_path)) == 5


def test_an_interrupt_while_wandb_logs_stops_the_run_and_finishes_it(tmp_path):
    remote = Remote("interrupt")
    with pytest.raises(KeyboardInterrupt), Tracker(tmp_path, remote) as tracker:
        tracker.log("rl", 0, {"kl": 0.5})
    assert remote.finished


def test_a_wandb_that_fails_to_start_stops_nothing(tmp_path, caplog, monkeypatch):
    def fail(*_args):
        raise RuntimeError("no key")

    monkeypatch.setattr(tracking, "start_wandb", fail)
    with Tracker.open(load("train_rl", ["wandb.project=x"]), tmp_path) as tracker:
        tracker.log("rl", 0, {"kl": 1.0})
    assert "failed to start (RuntimeError: no key)" in caplog.text
    assert len(read_metrics(tmp_path)) == 1


def test_no_wandb_means_no_import(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    Tracker.open(load("train_rl", ["wandb=null"]), tmp_path).close()


def test_wandb_is_online_only_with_a_key(tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org/sub")
    assert wandb_mode(WandbConfig()) == "offline"
    (tmp_path / "netrc").write_text("machine other.example.org login user password k\n")
    assert wandb_mode(WandbConfig()) == "offline"
    (tmp_path / "netrc").write_text("machine wandb.example.org login user password k\n")
    (tmp_path / "netrc").chmod(0o600)
    assert wandb_mode(WandbConfig()) == "online"
    assert wandb_mode(WandbConfig(offline_mode=True)) == "offline"
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert wandb_mode(WandbConfig()) == "online"


def test_wandb_gets_the_settings(tmp_path, monkeypatch):
    seen = {}
    fake = types.SimpleNamespace(init=lambda **kwargs: seen.update(kwargs), Settings=lambda **kwargs: kwargs)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    cfg = load("train_rl", ["wandb.project=p", "name=n"])
    start_wandb(cfg.wandb, cfg, tmp_path)
    assert (seen["project"], seen["name"], seen["mode"], seen["dir"]) == ("p", "n", "offline", str(tmp_path))
    assert seen["config"]["env"]["id"] == "PushCube-v1"
