"""Small runs that are built as the product builds them, to hold the plan against."""

import torch
from helpers.learners import judge

from rlft.config.load import load
from rlft.errors import RlftError
from rlft.run.assembly.envs import build_rollout_envs
from rlft.run.assembly.learner import build_runner

torch.set_num_threads(1)  # the models are too small to share

# One rollout is updated on again, so the first ratio may be any.
TOY = ["task=toy", "env.num_envs=4", "env.n_steps_rollout=20", "train.n_critic_warmup_itr=0", "train.update_epochs=1"]
TOY += ["guard.max_first_log_ratio=1e9", "eval.num_envs=4"]


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
