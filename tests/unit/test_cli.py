import os
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rlft import __main__ as package
from rlft import cli
from rlft.cli import OPTIONS
from rlft.completion import completion_script
from rlft.config.groups import CONFIG_DIR
from rlft.config.load import load
from rlft.errors import RlftError

SCRIPTS = Path(cli.__file__).resolve().parents[1] / "scripts"


def test_checked_settings_reach_the_stage():
    seen = []
    words = ["seed=3", "task=toy", "--config-name", "train_rl", "num_steps=2"]
    assert cli.main("train_rl", seen.append, "Doc.", words) == 0
    assert (seen[0].seed, seen[0].num_steps, seen[0].env.simulator) == (3, 2, "toy")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bogus"], "--bogus: no such option; a setting is written bogus=VALUE"),
        (["--bogus", "3"], "bogus: no such setting"),
        (["--config-nam", "x"], "did you mean --config-name?"),
        (["--cfg", "hydra"], "write --cfg"),
        (["seed=1,2"], "add -m"),
        (["-m", "seed=1"], "for instance seed=0,1,2"),
        (["-m", "seed=interval(0,1)"], "list them: seed=1,2,3"),
        (["-m", "seed=1,x,y"], "seed=x: seed = 'x': expected whole number"),
        (["-m", "output.dir=a,b"], "every member has a directory of its own"),
        (["seed=x"], "seed = 'x': expected whole number"),
        (["~seed"], "seed has no null"),
        (["~task"], "task is one of"),
    ],
)
def test_a_word_that_is_none_of_ours_is_status_2_and_leads_to_one(words, said, capsys):
    assert cli.main("train_rl", lambda _cfg: pytest.fail("ran"), None, words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        *(["--seed", "1"], ["--seed=1"], ["+seed=1"], ["++seed=1"]),
        *(["-cn", "train_rl", "seed=1"], ["-cd", str(CONFIG_DIR), "seed=1"]),
        ["seed=1", "~wandb", "~randomization"],
        ["seed=1", "wandb.project=x", "~wandb"],
        ["seed=1", "+env.make_kwargs.far=3", "~env.make_kwargs.far"],
    ],
)
def test_other_tools_spellings_say_the_same(words):
    seen = []
    assert cli.main("train_rl", seen.append, None, words) == 0
    assert seen == [load("train_rl", ["seed=1"])]


@pytest.mark.parametrize("words", [["--cfg"], ["--cfg", "job"], ["--cfg=job"], ["-c", "job"]])
def test_the_settings_are_shown_as_hydra_is_asked_for_them(words, capsys):
    assert cli.main("train_rl", lambda _cfg: pytest.fail("ran"), None, [*words, "seed=4"]) == 0
    assert "\nseed: 4\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("/usr/bin/rlft-train-rl", "rlft-train-rl"),
        ("scripts/train_rl.py", "scripts/train_rl.py"),
        ("/x/rlft/__main__.py", "python -m rlft train-rl"),
    ],
)
def test_the_usage_says_the_name_that_was_typed(called, name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [called, "train-rl"])
    assert cli.train_rl(["--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: {name} [--config-dir DIR]")


def test_the_package_lists_its_commands_and_runs_them(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["/x/rlft/__main__.py", *words])
        return package.main(), capsys.readouterr()

    status, said = run()
    assert status == 0
    assert [line.split()[0] for line in said.out.splitlines()[2:]] == list(cli.COMMANDS)
    assert run("tran-rl")[0] == 2
    assert run("collect", "seed=x")[0] == run("completion", "fish")[0] == 2
    assert "rlft-assets" not in run("completion", "bash")[1].out


def test_the_installed_commands_are_the_packages():
    scripts = tomllib.loads((SCRIPTS.parent / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {f"rlft-{name}": f"rlft.cli:{name.replace('-', '_')}" for name in cli.COMMANDS}


@pytest.mark.parametrize(("called", "name"), [("/usr/bin/rlft-assets", "rlft-assets"), ("x.py", "x.py")])
def test_the_command_of_the_assets_says_its_name(called, name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [called])
    assert cli.assets(["--root", __file__]) == 2
    assert capsys.readouterr().err.startswith(f"{name}: ")


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
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", WAIT], **pipes, text=True) as process:
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
        assert out == "cleaned up\n"
        assert process.returncode == status


def test_a_reader_that_leaves_early_is_no_error():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, str(SCRIPTS / "train_rl.py"), "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_simulator_does_not_know_is_an_error_of_the_settings(workers):
    from rlft.run.assembly.envs import env_settings, make_vec_env

    cfg = load("evaluate", ["task=toy", "env.id=ToyRech-v0", f"sim.num_workers={workers}"])
    said = r"env.id = 'ToyRech-v0' is not known; did you mean ToyReach-v0\?"
    with pytest.raises(RlftError, match=said) as caught:
        make_vec_env(env_settings(cfg, 2))
    assert caught.value.exit_code == 2


ASK = {
    "bash": """
COMP_LINE="rlft-train-rl $1"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=($COMP_LINE); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_rlft; printf "%s\\n" "${COMPREPLY[@]}"
""",
    # compadd works inside zsh's line editor alone; a function in its place prints what it is given and would keep.
    "zsh": """
compadd() { print -l -- ${(M)${@[$@[(i)--]+1,-1]}:#$words[CURRENT]*} }
words=(rlft-train-rl ${=1}); CURRENT=$#words; _rlft
""",
}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_options_groups_keys_and_choices_are_completed(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")

    def completed(line):
        command = [shell, "-c", completion_script(shell, ["train-rl"], OPTIONS) + ASK[shell], shell, line]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    def values(key, *words):  # bash completes what comes after the =
        return list(words) if shell == "bash" else [f"{key}={word}" for word in words]

    assert completed("--conf") == ["--config-dir", "--config-name"]
    assert completed("--config-name demo") == ["demo_cpu"]
    assert completed("train.gamma") == ["train.gamma=", "train.gamma_per="]
    assert completed("placement=") == values("placement", "cpu", "one_gpu", "three_gpus")
    assert completed("seed=1 train.gamma_per=s") == values("train.gamma_per", "step")
    assert completed("sim.overlap=") == values("sim.overlap", "true", "false", "null")
    assert completed("no.such") == []
