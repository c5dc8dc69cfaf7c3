"""Small runs that are built as the product builds them, and networks as shapes alone, to hold the plan against."""

from __future__ import annotations

import torch
from helpers.learners import judge

from rlft.config.load import load
from rlft.data.normalize import NormStats
from rlft.errors import RlftError
from rlft.policy.pi0.factory import ARCHITECTURES, lerobot_config
from rlft.policy.pi0.policy import Pi0Policy
from rlft.policy.pi0.transforms import Pi0Input
from rlft.run.assembly.envs import build_rollout_envs
from rlft.run.assembly.learner import build_runner

torch.set_num_threads(1)  # the models are too small to share

TOY = (
    "task=toy",
    "env.num_envs=4",
    "env.n_steps_rollout=20",
    "train.n_critic_warmup_itr=0",
    "train.update_epochs=1",
    "guard.max_first_log_ratio=1e9",  # one rollout is updated on again
    "eval.num_envs=4",
)


def toy_settings(*overrides):
    return load("train_rl", [*TOY, "train.batch_size=16", *overrides])


def toy_runner(cfg):
    """A runner whose rollouts and updates are real; the spec of its environment."""

    def evaluate(*_):
        raise RlftError("nothing is evaluated here")

    envs = build_rollout_envs(cfg)
    return build_runner(cfg, envs, envs[0], None, None, evaluate), envs[0].spec


def toy_rollout(runner):
    rollout, _ = runner.sampler.collect(0)
    judge(runner.objective, rollout)
    return rollout


def update(runner, rollout, iteration=0):
    runner.updater.update(rollout, iteration, torch.Generator().manual_seed(iteration))


def bare_policy(cfg, device, *, cameras=1):
    """The network of some settings, without a tokenizer: pictures and tokens are made up."""
    stats = NormStats(
        state_mean=(0.0,),
        state_std=(1.0,),
        action_mean=(0.0,),
        action_std=(1.0,),
        env_id="Env-v1",
        control_mode="pd",
        cameras=tuple(f"camera{i}" for i in range(cameras)),
    )
    config = lerobot_config(
        cfg.model.kind, stats, horizon=cfg.n_action_steps, device=device, small=cfg.model.small, dtype=cfg.model.dtype
    )
    with torch.random.fork_rng(), torch.device(device):
        model = ARCHITECTURES[cfg.model.kind][1](config)
    recompute = cfg.model.gradient_checkpointing
    return Pi0Policy(model, stats, None, train_vlm=cfg.model.train_vlm, recompute=recompute)


def blank_inputs(size, rows, device):
    """Made-up observations; π0.5's prompts differ in length, so one of them is masked somewhere."""
    side, tokens = size.vision.side, size.tokens
    mask = torch.ones(rows, tokens, dtype=torch.bool, device=device)
    mask[0, -1:] = not size.pi05
    return Pi0Input(
        images=torch.zeros(rows, size.cameras, 3, side, side, dtype=torch.uint8, device=device),
        tokens=torch.zeros(rows, tokens, dtype=torch.int64, device=device),
        token_mask=mask,
        state=torch.zeros(rows, 32, device=device),
    )


def blank_chunks(size, rows, device):
    return torch.zeros(rows, size.horizon, 32, device=device), torch.full((rows,), 0.5, device=device)
