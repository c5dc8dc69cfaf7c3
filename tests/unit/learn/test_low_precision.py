"""The ratio before the first step where products are rounded to bfloat16."""

import copy
import math

import pytest
import torch
from policy.pi0_cases import CPU, H, make_observation, make_policy

from rlft.config.learning import TrainConfig
from rlft.errors import DivergedError
from rlft.learn.gae import assign_advantages
from rlft.learn.ppo import PpoUpdater
from rlft.policy.actor_critic import ActorCritic
from rlft.policy.critic import Critic
from rlft.policy.denoise import make_schedule
from rlft.policy.noise import NoiseHead
from rlft.rollout.buffer import RolloutBuffer

E, T = 6, 4


def make_model(kind, dtype):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = make_policy(kind, dtype=dtype)
        noise = NoiseHead(policy.feature_dim, policy.action_width, 0.1, 0.3, learned=True)
        critic = Critic(policy.feature_dim, 0, [8])
    return ActorCritic(policy, noise, critic, make_schedule("flow_noise", 3, 0.5), H, [0, 1, 2])


def rollout(model):
    buffer = RolloutBuffer(T, E, CPU, CPU)
    generator = torch.Generator().manual_seed(5)
    executed, no = torch.full((E,), H), torch.zeros(E, dtype=torch.bool)
    for t in range(T):
        with torch.no_grad():
            prefix = model.policy.encode(model.policy.prepare(make_observation(E, seed=t)))
        noise = torch.randn(E, 4, H, 32, generator=generator)
        sample = model.sample(prefix, noise, torch.zeros(E, dtype=torch.int64), None)
        buffer.add(
            t, prefix=prefix, chain=sample.chain, drawn_step=sample.drawn_step, n_executed=executed, value=sample.value,
            log_prob=sample.log_prob.joint(executed), terminated=~no if t == T - 1 else no, truncated=no, invalid=no,
            rewards=torch.randn(E, H, generator=generator), final_value=torch.zeros(E),
        )  # fmt: skip
    return buffer


def first_update(model, buffer, **changes):
    cfg = TrainConfig(batch_size=10, micro_batch_size=5, update_epochs=1, n_critic_warmup_itr=0, **changes)
    assign_advantages(buffer, cfg)
    exact = model.policy.config.dtype == "float32"
    return PpoUpdater(model, cfg, "sum", exact=exact).update(buffer, 0, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["small", "small_pi05"])
def test_float32_needs_no_recomputation(kind):
    model = make_model(kind, "float32")
    metrics = first_update(model, rollout(model))
    assert math.isnan(metrics["rollout_max_log_ratio"])
    assert metrics["first_max_log_ratio"] < 1e-3


@pytest.mark.parametrize(("kind", "far"), [("small", 0.01), ("small_pi05", 1e-4)])
def test_bfloat16_recomputes_and_says_how_far_the_rollout_was(kind, far):
    model = make_model(kind, "bfloat16")
    metrics = first_update(model, rollout(model))
    assert metrics["rollout_max_log_ratio"] > far  # what a clip range of 0.2 would have begun with
    assert metrics["first_max_log_ratio"] < 0.05
    assert metrics["first_max_log_ratio"] < metrics["rollout_max_log_ratio"]
    assert metrics["updates"] > 0


def test_bfloat16_that_does_not_agree_after_recomputation_stops_before_anything_moves(monkeypatch):
    model = make_model("small", "bfloat16")
    buffer = rollout(model)
    before = copy.deepcopy(model.state_dict())
    recompute = PpoUpdater.recompute_old

    def recompute_on_another_grid(self, stored):
        difference = recompute(self, stored)
        self.model.schedule.t.sub_(0.01).clamp_(min=1e-3)
        return difference

    monkeypatch.setattr(PpoUpdater, "recompute_old", recompute_on_another_grid)
    with pytest.raises(DivergedError, match=r"stored ones by .* joint nats \(and the rollout's by .*0\.05"):
        first_update(model, buffer)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
