"""The whole pipeline at toy size on real ManiSkill: planned demonstrations, rendered pictures, π0, PPO, report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from config.test_load import AS_IT_STANDS

from rlft.config.load import load
from rlft.run import stages

pytestmark = pytest.mark.simulator

ROOT = Path(__file__).resolve().parents[2]
TINY = ["sim.num_workers=0", "collect.num_episodes=3", "collect.num_procs=1", "sft.steps=6", "sft.batch_size=4"]
TINY += ["env.num_envs=2", "env.max_episode_len=20", "env.n_steps_rollout=20", "train.batch_size=4"]
TINY += ["train.n_train_itr=2", "train.val_freq=0", "eval.num_envs=2", "eval.episodes=4", "eval.num_videos=2"]
TINY += ["guard.min_noisy_success=0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.set_num_threads(1)
    where = tmp_path_factory.mktemp("pipeline") / "run"
    base = [f"output.dir={where}", *TINY]
    warm = f"model.path={where}/sft/checkpoints/last/pretrained_model"
    stages.collect_demos(load("collect_demos", base, config_name="demo_cpu"))
    stages.train_sft(load("train_sft", base, config_name="demo_cpu"))
    heavy = [*base, warm, "task=push_heavy_cube"]
    stages.evaluate(load("evaluate", [*heavy, "eval.label=sft"], config_name="demo_cpu"))
    stages.train_rl(load("train_rl", heavy, config_name="demo_cpu"))
    stages.report(load("report", base, config_name="demo_cpu"))
    return where


def test_the_summary_holds_what_is_promised_and_every_artefact_is_there(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["env_id"] == "PushCube-v1"
    assert summary["cameras"] == [{"name": "base_camera", "height": 56, "width": 56}]
    assert summary["policy"]["parameters"] > 100_000
    assert summary["collect"]["episodes"] == 3
    assert summary["sft"]["steps"] == 6
    assert summary["sft"]["episodes"] == summary["rl"]["episodes"] == 4
    assert len(summary["sft"]["ci95"]) == len(summary["rl"]["ci95"]) == 2
    assert summary["rl"]["iterations"] == 2
    assert summary["throughput"]["env_steps_per_s"] > 0
    assert summary["throughput"]["samples_per_s_update"] > 0
    assert summary["seconds"]["total"] > 0
    assert summary["comparison"]["differences"] == []
    assert summary["missing"] == []

    for name in ("config.yaml", "metrics.jsonl", "report.html", "report.png", "dataset/meta/info.json"):
        assert (run / name).is_file(), name
    for label in ("sft", "rl"):
        assert len(list((run / "videos").glob(f"{label}_*.mp4"))) == 2
    checkpoint = run / "rl" / "checkpoints" / "last"
    assert (checkpoint / "pretrained_model" / "model.safetensors").is_file()
    assert (checkpoint / "state.pt").is_file()


def test_the_update_starts_from_the_rollouts_own_log_probabilities(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    first = [line["update/first_max_log_ratio"] for line in lines if line["stage"] == "rl"]
    assert len(first) == 2
    assert max(first) < 1e-4


def test_the_recorded_pictures_show_a_scene(run):
    from rlft.data.dataset import DemoSet

    demos = DemoSet.load(run / "dataset", 5)
    pictures = demos.images["base_camera"]
    assert pictures.shape[1:] == (56, 56, 3)
    assert float(pictures.float().std(dim=(1, 2, 3)).min()) > 5.0  # neither black nor flat
    assert not torch.equal(pictures[0], pictures[10])


def test_the_first_command_of_the_field_runs_as_it_stands(tmp_path):
    words = [*AS_IT_STANDS.split(), "eval.episodes=4", "eval.num_videos=0"]
    command = [sys.executable, str(ROOT / "scripts" / "train_rl.py"), *words, f"output.dir={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "run" / "rl.json").read_text())["iterations"] == 2
