"""What a user brings from a package of his own, through the wheel, where nothing of this checkout can be seen."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from rlft.run import checkpoint

pytestmark = pytest.mark.timeout(600)  # five stages, two of them with a simulator's start

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("rlft", "envs", "configs", "pyproject.toml", "README.md", "LICENSE")
TINY = ["collect.num_episodes=3", "sft.steps=6", "sft.batch_size=4", "env.num_envs=2", "train.batch_size=4"]
TINY += ["train.n_train_itr=1", "train.val_freq=0", "eval.num_envs=2", "eval.episodes=2", "eval.num_videos=1"]
TINY += ["guard.min_noisy_success=0", "train.skip_initial_eval=true", "sim.num_workers=1", "collect.num_procs=1"]
# The commands that the installed rlft-NAME run, one after another; the first that fails ends it with its status.
COMMANDS = """
import json, sys
from rlft import cli
sys.exit(next(filter(None, (vars(cli)[name](words) for name, words in json.loads(sys.argv[1]))), 0))
"""


class Installed:
    """An environment with the wheel, and a folder with the user's own packages and settings."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.python = folder, folder / "venv" / "bin" / "python"
        sources = folder / "sources"
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / name, sources / name)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, sources], check=True)
        shutil.rmtree(sources)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        wheel = next(folder.glob("*.whl"))
        subprocess.run([*pip, "--python", self.python, "install", "--no-deps", wheel], check=True)
        site = next((folder / "venv").glob("lib/python*/site-packages"))
        # What it depends on is this environment's: a folder on the path, whose own .pth files are not read.
        (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        shutil.copytree(ROOT / "tests" / "plugins", folder / "user")

    def run(self, *words: object) -> str:
        """What a command prints; its standard error is in the failure."""
        user = self.folder / "user"
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(user)}
        done = subprocess.run(
            [self.python, *map(str, words)], cwd=user, env=environment, capture_output=True, text=True, timeout=560
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    def pipeline(self, name: str, *words: str, source: str) -> Path:
        """Demonstrations, SFT, PPO, evaluation and report in one process; gives the run directory."""
        run = self.folder / "user" / "outputs" / name
        base = [*words, f"name={name}", *TINY]
        sft, rl = (f"model.path={run}/{stage}/checkpoints/last/pretrained_model" for stage in ("sft", "rl"))
        commands = [("collect", base), ("train_sft", base), ("train_rl", [*base, sft])]
        commands += [("evaluate", [*base, rl, "eval.label=mine"]), ("report", base)]
        self.run("-c", COMMANDS, json.dumps(commands))
        assert json.loads((run / "collect.json").read_text())["episodes"] == 3
        assert json.loads((run / "dataset" / "rlft.json").read_text())["planner"] == source
        assert json.loads((run / "rl.json").read_text())["iterations"] == 1
        assert json.loads((run / "eval_mine.json").read_text())["episodes"] == 2
        assert (run / "report.html").is_file()
        return run


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("installed"))


def test_the_wheel_is_what_runs_and_brings_its_settings(installed):
    code = "import rlft, rlft_envs, rlft_tasks; print(rlft.__file__, rlft_envs.__file__, rlft_tasks.__file__)"
    where = installed.run("-c", code)
    assert all(str(installed.folder / "venv") in file for file in where.split())
    settings = installed.run("-m", "rlft", "train-rl", "--cfg", "algo=grpo")
    assert "PushCube-v1" in settings
    assert "objective: grpo" in settings


@pytest.mark.simulator
def test_a_task_a_planner_a_robot_and_a_control_mode_of_another_package(installed):
    """The task is ``their_pkg.tasks:MyPush-v1``; robot and control mode are described in its task file alone."""
    run = installed.pipeline("mine", "--config-dir", "settings", "task=my_push", source="their_pkg.planner:expert")
    result = json.loads((run / "eval_mine.json").read_text())
    assert result["protocol"]["env_id"] == "their_pkg.tasks:MyPush-v1"
    assert result["protocol"]["control_mode"] == "slow_delta"


def test_a_gymnasium_environment_of_another_package(installed):
    """Nested dictionaries, float images ``[3, h, w]``, no action bounds, as its task file says; no critic."""
    words = ["--config-dir", "settings", "task=slide", "algo=grpo", "train.options.group_size=2"]
    run = installed.pipeline("slide", *words, source="their_gym:SliderExpert")
    state = checkpoint.load_state(run / "rl/checkpoints/last")
    assert list(state["optimizers"]) == ["actor"]
    assert json.loads((run / "eval_mine.json").read_text())["protocol"]["simulator"] == "gymnasium"


def test_a_policy_and_an_objective_of_another_package(installed):
    """A convolution with an MLP, found again by its checkpoint alone, trained by REINFORCE."""
    words = ["task=toy", "n_action_steps=5", "act_steps=5", "model.kind=their_policy.flow:FAMILY"]
    words += ["train.objective=reinforce:Reinforce"]
    run = installed.pipeline("flow", *words, source="rlft_tasks.toy:ToyExpert")
    facts = json.loads((run / "rl/checkpoints/last/pretrained_model/rlft_policy.json").read_text())
    assert facts["kind"] == "their_policy.flow:FAMILY"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all("reinforce/reward" in line for line in lines if line["stage"] == "rl")
