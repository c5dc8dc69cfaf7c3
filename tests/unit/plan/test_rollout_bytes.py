"""The rollout's size, counted beforehand: what a run asks for, and what its plan says."""

import pytest
from helpers.plan_cases import toy_rollout, toy_runner, toy_settings

from rlft.plan.memory import HOST, Assumptions, plan_rl
from rlft.plan.network import rollout_bytes

PREFIX, IMAGES = "buffer.store=prefix", "buffer.store=images"
GROUPS = ("train.objective=grpo", "train.options.group_size=2", "env.max_episode_len=20")
CASES = [
    (IMAGES, "n_action_steps=7", "num_steps=2"),
    (PREFIX, "critic.inputs=both", "env.num_envs=2", "train.batch_size=8"),
    (IMAGES, "env.cameras=[]"),
    (PREFIX, "env.cameras=[{name: top, height: 28, width: 28}, {name: side}]"),
    (PREFIX, "model.kind=small_pi05"),
    (PREFIX, "model.dtype=bfloat16"),
    (PREFIX, *GROUPS),
    (IMAGES, *GROUPS, "train.options.estimator=rloo"),
    (PREFIX, "train.objective=reinforce:Reinforce"),
]


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_it_equals_a_real_rollout(words):
    cfg = toy_settings(*words)
    runner, spec = toy_runner(cfg)
    held, policy = toy_rollout(runner).nbytes(), runner.objective.actor.policy
    how = {"store": cfg.buffer.store, "privileged_dim": spec.privileged_dim, "tokens": policy.prompt_length}
    assert rollout_bytes(cfg, policy, **how) == held
    assumed = Assumptions(tokens=policy.prompt_length, privileged_dim=spec.privileged_dim, cores=1)
    assert plan_rl(cfg, assumed, cfg.buffer.store).used[HOST]["buffer"] == held
