"""The whole pipeline on a Gymnasium environment: gym-aloha's MuJoCo, a scripted expert, π0, PPO, in a worker."""

import json

import pytest
import torch
from renders_mujoco import needs_mujoco

from rlft.config.load import load
from rlft.run import stages

pytestmark = pytest.mark.simulator

TINY = ["task=aloha", "sim.num_workers=1", "collect.num_episodes=2", "collect.num_procs=1", "sft.steps=3"]
TINY += ["sft.batch_size=4", "env.num_envs=2", "env.max_episode_len=10", "env.n_steps_rollout=10", "train.batch_size=2"]
TINY += ["train.n_train_itr=1", "train.val_freq=0", "train.skip_initial_eval=true", "critic.inputs=privileged"]
TINY += ["eval.num_envs=2", "eval.episodes=2", "eval.num_videos=1", "guard.min_noisy_success=0"]


def test_demonstrations_sft_ppo_and_evaluation(tmp_path):
    needs_mujoco()
    torch.set_num_threads(1)
    base = [f"output.dir={tmp_path}", *TINY]
    warm = f"model.path={tmp_path}/sft/checkpoints/last/pretrained_model"
    stages.collect_demos(load("collect_demos", base))
    stages.train_sft(load("train_sft", base))
    stages.train_rl(load("train_rl", [*base, warm]))
    collected = json.loads((tmp_path / "dataset" / "rlft.json").read_text())
    assert collected["control_mode"] == "native"
    assert collected["planner"] == "rlft_tasks.aloha.expert:TransferExpert"
    assert {"gymnasium", "gym-aloha", "mujoco"} < set(collected["versions"])
    result = json.loads((tmp_path / "eval_rl.json").read_text())
    assert result["protocol"]["simulator"] == "gymnasium"
    assert result["episodes"] == 2
