import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlft import cli
from rlft.config.compose import CONFIG_DIR
from rlft.config.load import load
from rlft.errors import ConfigError, RlftError

SCRIPTS = Path(cli.__file__).resolve().parents[1] / "scripts"


def test_checked_settings_reach_the_stage():
    seen = []
    assert (
        cli.main("train_rl", seen.append, "Doc.", ["seed=3", "task=toy", "--config-name", "train_rl", "num_steps=2"])
        == 0
    )
    assert (seen[0].seed, seen[0].num_steps, seen[0].env.simulator) == (3, 2, "toy")


def test_bad_settings_reach_no_stage(capsys):
    assert cli.main("train_rl", lambda _cfg: pytest.fail("ran"), None, ["seed=x"]) == 2
    assert "seed = 'x': expected whole number" in capsys.readouterr().err


def test_an_unknown_option_is_status_2(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main("train_rl", lambda _cfg: pytest.fail("ran"), None, ["--bogus"])
    assert caught.value.code == 2
    assert "--bogus" in capsys.readouterr().err


def test_an_error_for_the_user_has_no_traceback_and_its_own_status(capsys):
    class DivergedError(RlftError):
        exit_code = 3

    def fail(_cfg):
        raise DivergedError("loss is nan")

    assert cli.main("train_rl", fail, None, []) == 3
    assert capsys.readouterr().err.endswith("train_rl: loss is nan\n")


def test_a_bug_keeps_its_traceback():
    def fail(_cfg):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.main("train_rl", fail, None, [])


def test_help_names_groups_and_settings(capsys):
    assert cli.main("evaluate", lambda _cfg: pytest.fail("ran"), "What it does.", ["--help", "seed=bad"]) == 0
    out = capsys.readouterr().out
    assert "What it does." in out
    tasks = "|".join(sorted(path.stem for path in (CONFIG_DIR / "task").glob("*.yaml")))
    assert "push_cube" in tasks
    assert f"task={tasks}" in out
    assert "train.clip_ratio = 0.2: PPO clip range" in out


WAIT = """
import sys, time
from rlft import cli
def run(cfg):
    try:
        print("running", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)
sys.exit(cli.main("train_rl", run, None, []))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_run_the_clean_up_and_give_their_status(number, status):
    with subprocess.Popen(
        [sys.executable, "-c", WAIT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
        assert out == "cleaned up\n"
        assert process.returncode == status


def test_a_reader_that_leaves_early_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "train_rl.py"), "--help"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_simulator_does_not_know_is_an_error_of_the_settings(workers):
    from rlft.run.assembly import build_env, simulator_errors

    cfg = load("evaluate", ["task=toy", "env.id=ToyRech-v0", f"sim.num_workers={workers}"])
    said = r"env.id = 'ToyRech-v0' is not known; did you mean ToyReach-v0\?"
    with pytest.raises(ConfigError, match=said), simulator_errors():
        build_env(cfg, 2)
