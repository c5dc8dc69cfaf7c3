"""Sweeps with real stages at toy size: every member in a process and a directory of its own, and one table."""

import json
import os
import signal
import subprocess
import sys

import pytest

from rlft import cli
from rlft.sweep import expand

TINY = [
    *("task=toy", "env.num_envs=2", "env.max_episode_len=5", "env.n_steps_rollout=5", "train.batch_size=2"),
    *("train.n_train_itr=1", "train.skip_initial_eval=true", "eval.episodes=2", "eval.num_envs=2", "eval.num_videos=0"),
]


def test_lists_make_every_combination_and_its_name():
    members = expand(["seed=0,1", "task=toy", "train.gamma=0.9,0.99", "env.state_terms=[a,b]"])
    assert list(members)[:2] == ["seed=0,train.gamma=0.9", "seed=0,train.gamma=0.99"]
    assert members["seed=1,train.gamma=0.9"] == ["seed=1", "task=toy", "train.gamma=0.9", "env.state_terms=[a,b]"]
    assert list(expand(["name='a/b','a?b'"])) == ["0_name=_a_b_", "1_name=_a_b_"]


def test_a_member_that_fails_stops_no_other_and_the_table_has_both(tmp_path, capsys):
    where = f"output.dir='{tmp_path}/a, b'"
    assert cli.main("train_rl", lambda _cfg: None, None, ["-m", *TINY, where, f"model.path={tmp_path}/no,null"]) == 2
    rows = json.loads((tmp_path / "a, b" / "sweep.json").read_text())
    assert [row["status"] for row in rows] == [2, 0]
    assert rows[0]["results"] == {}
    evaluation = json.loads((tmp_path / "a, b" / "model.path=null" / "eval_rl.json").read_text())
    assert rows[1]["results"]["eval_rl"].startswith(f"{evaluation['success']:.4g} [")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| member | exit | seconds | eval_rl |"
    assert lines[3].startswith("| model.path=null | 0 | ")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_member_that_runs_and_the_sweep(number, status, tmp_path):
    words = ["-m", *TINY, "train.n_train_itr=100000,200000", f"output.dir={tmp_path}/a"]
    with subprocess.Popen([sys.executable, "-m", "rlft", "train-rl", *words], stderr=subprocess.PIPE, text=True) as run:
        for line in run.stderr:
            if "rl 1/100000" in line or "iteration 1" in line:
                break
        run.send_signal(number)
        run.communicate(timeout=60)
        assert run.returncode == status
    held = subprocess.run(["pgrep", "-f", f"{tmp_path}"], capture_output=True, text=True).stdout.split()
    assert [pid for pid in held if int(pid) != os.getpid()] == []
