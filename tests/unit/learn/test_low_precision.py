"""The ratio before the first step where products are rounded to bfloat16."""

import copy
import math

import pytest
import torch
from helpers.learners import decide, judge, make_ppo, random_draws, settings
from policy.pi0_cases import CPU, H, make_observation, make_policy

from rlft.config.load import changed
from rlft.errors import DivergedError
from rlft.learn.updater import Updater
from rlft.objective.ppo import PPO
from rlft.rollout.buffer import Rollout

E, T = 6, 4


def make_model(kind, dtype):
    cfg = settings(batch_size=10, micro_batch_size=5, update_epochs=1, n_critic_warmup_itr=0)
    cfg = changed(cfg, {"model.dtype": dtype})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = make_policy(kind, dtype=dtype)
        return make_ppo(policy, cfg, steps=3, std=(0.1, 0.3), learned=True, explored=[0, 1, 2])


def filled(model):
    rollout, policy = Rollout(T, E, CPU, CPU), model.actor.policy
    for t in range(T):
        with torch.no_grad():
            prefix = policy.encode(policy.prepare(make_observation(E, seed=t)))
        rewards = torch.randn(E, H, generator=torch.Generator().manual_seed(t))
        decide(model, rollout, t, prefix, random_draws(model.actor, E, 5 + t), rewards, ends=t == T - 1)
    judge(model, rollout)
    return rollout


def first_update(model, rollout):
    return Updater(model, model.cfg.train).update(rollout, 0, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["small", "small_pi05"])
def test_float32_needs_no_recomputation(kind):
    model = make_model(kind, "float32")
    metrics = first_update(model, filled(model))
    assert math.isnan(metrics["rollout_max_log_ratio"])
    assert metrics["first_max_log_ratio"] < 1e-3


@pytest.mark.parametrize(("kind", "far"), [("small", 0.01), ("small_pi05", 1e-4)])
def test_bfloat16_recomputes_and_says_how_far_the_rollout_was(kind, far):
    model = make_model(kind, "bfloat16")
    metrics = first_update(model, filled(model))
    assert metrics["rollout_max_log_ratio"] > far  # what a clip range of 0.2 would have begun with
    assert metrics["first_max_log_ratio"] < 0.05
    assert metrics["first_max_log_ratio"] < metrics["rollout_max_log_ratio"]
    assert metrics["updates"] > 0


def test_bfloat16_that_does_not_agree_after_recomputation_stops_before_anything_moves(monkeypatch):
    model = make_model("small", "bfloat16")
    rollout = filled(model)
    before = copy.deepcopy(model.state_dict())
    recompute = PPO.recompute_old

    def recompute_on_another_grid(self, stored):
        difference = recompute(self, stored)
        self.actor.schedule.t.sub_(0.01).clamp_(min=1e-3)
        return difference

    monkeypatch.setattr(PPO, "recompute_old", recompute_on_another_grid)
    with pytest.raises(DivergedError, match=r"stored ones by .* joint nats \(and the rollout's by .*0\.05"):
        first_update(model, rollout)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
