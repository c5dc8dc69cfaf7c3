"""The rollout buffer's size, counted beforehand."""

import pytest
from helpers.plan_cases import toy_rollout, toy_runner, toy_settings

from rlft.plan.rollout import rollout_bytes

CASES = {
    "prefix": ["buffer.store=prefix"],
    "images": ["buffer.store=images", "n_action_steps=7", "num_steps=2"],
    "privileged": ["critic.inputs=both", "buffer.store=prefix", "env.num_envs=2", "train.batch_size=8"],
    "no camera": ["env.cameras=[]", "buffer.store=images"],
    "two cameras": ["env.cameras=[{name: top, height: 28, width: 28}, {name: side}]", "buffer.store=prefix"],
    "pi05": ["model.kind=small_pi05", "buffer.store=prefix"],
    "half prefix": ["model.dtype=bfloat16", "buffer.store=prefix"],
}


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES.keys())
def test_it_equals_a_real_buffer(overrides):
    cfg = toy_settings(*overrides)
    runner, spec = toy_runner(cfg)
    buffer = toy_rollout(runner)
    tokens = runner.objective.actor.policy.prompt_length
    counted = rollout_bytes(cfg, store=cfg.buffer.store, privileged_dim=spec.privileged_dim, tokens=tokens)
    assert counted == buffer.nbytes()
