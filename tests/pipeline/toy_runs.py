"""Runs of the real stages on the toy task, and what they leave."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from rlft.config.load import load
from rlft.run import checkpoint, stages

TOY = ["task=toy", "env.num_envs=3", "env.n_steps_rollout=10", "env.max_episode_len=10", "train.batch_size=4"]
TOY += ["train.update_epochs=2", "train.n_critic_warmup_itr=0", "train.skip_initial_eval=true", "train.val_freq=0"]
TOY += ["train.save_model_freq=1", "train.actor_optimizer.lr=1e-3", "eval.num_envs=2", "eval.episodes=4"]
TOY += ["eval.num_videos=0"]


def train(run: Path, *words: str) -> Path:
    stages.train_rl(load("train_rl", [*TOY, f"output.dir={run}", *words]))
    return run


def weights(run: Path, step: int, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    """Of the policy and of the objective's heads."""
    folder = run / "rl" / "checkpoints" / f"{step:06d}"
    heads = checkpoint.load_state(folder)["heads"]
    heads = {f"{head}.{k}": v for head, state in heads.items() for k, v in state.items()}
    return load_file(folder / "pretrained_model" / file) | heads


def equal(a: dict[str, object], b: dict[str, object]) -> bool:
    def alike(x: object, y: object) -> bool:
        return torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y

    return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of what training changed."""
    return {k for k in after if not torch.equal(before[k], after[k])}


def scalars(run: Path, stage: str = "rl") -> list[dict]:
    """What a stage logged, except for times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["stage"] == stage]
    return [{k: v for k, v in line.items() if not k.startswith(("time", "throughput"))} for line in lines]
