"""The supervised warm-up learns what it is shown, and continues bit for bit."""

import math

import pytest
import torch
from helpers.demonstrations import random_demos

from rlft.config.learning import OptimizerConfig, SftConfig
from rlft.config.schema import ModelConfig
from rlft.data.normalize import NormStats
from rlft.errors import DivergedError
from rlft.learn import sft
from rlft.learn.sft import SftTrainer
from rlft.policy.pretrained import build_policy

CPU = torch.device("cpu")
MODEL = ModelConfig(small={"image_size": 28})


def trainer(steps: int = 8, **changes) -> SftTrainer:
    data = random_demos()
    policy = build_policy(MODEL, NormStats.from_demos(data), horizon=3, device=CPU)
    defaults = {"steps": steps, "batch_size": 8, "warmup_steps": 2, "optimizer": OptimizerConfig(lr=3e-3)}
    return SftTrainer(policy, data, SftConfig(**(defaults | changes)), seed=0)


def weights(t: SftTrainer) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in t.policy.state_dict().items()}


def test_the_loss_falls():
    losses = []
    trainer(200, batch_size=24).run(lambda step, scalars: losses.append(scalars["loss"]))
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])


def test_stopping_and_resuming_equals_not_stopping():
    whole = trainer()
    whole.run(lambda step, scalars: None)
    first = trainer()
    for _ in range(5):
        first.step()
    second = trainer()
    second.policy.load_state_dict(first.policy.state_dict())
    second.load_state_dict(first.state_dict())
    second.run(lambda step, scalars: None)
    assert all(torch.equal(v, weights(second)[k]) for k, v in weights(whole).items())


def test_expert_only_leaves_the_prefix():
    t = trainer(3, train_expert_only=True)
    before = weights(t)
    t.run(lambda step, scalars: None)
    moved = {k for k, v in weights(t).items() if not torch.equal(v, before[k])}
    assert moved
    assert not any("paligemma." in k for k in moved)


def test_the_learning_rate_warms_up_and_decays():
    t = trainer(102, warmup_steps=2, final_lr_ratio=0.1)
    factors = [t.lr_factor(step) for step in range(103)]
    assert factors[0] == 0.5
    assert factors[1] == 1.0
    assert abs(factors[52] - 0.55) < 1e-6
    assert abs(factors[102] - 0.1) < 1e-6


def ahead(batches, device, *, tensors):
    """What :func:`rlft.placement.prefetched` does on a GPU, but for the streams: the next batch is gathered first."""
    upcoming = next(batches)
    while True:
        batch, upcoming = upcoming, next(batches)
        assert [x.shape[0] for x in tensors(batch)] == [8] * len(list(tensors(batch)))
        yield batch


@pytest.mark.parametrize("cache", [True, False])
def test_batches_that_are_gathered_ahead_are_the_same(monkeypatch, cache):
    changes = {"train_expert_only": True, "cache_prefix": cache}
    plain = trainer(6, **changes)
    losses = [plain.step()["loss"] for _ in range(6)]
    monkeypatch.setattr(sft, "prefetched", ahead)
    first, second = trainer(6, **changes), trainer(6, **changes)
    assert [first.step()["loss"] for _ in range(3)] == losses[:3]
    second.policy.load_state_dict(first.policy.state_dict())
    second.load_state_dict(first.state_dict())
    assert [second.step()["loss"] for _ in range(3)] == losses[3:]


def test_a_step_that_is_not_finite_changes_nothing_and_too_many_stop_the_run():
    t = trainer(max_skipped_updates=3)
    whole = t.demos.action.clone()
    t.demos.action[:] = float("nan")
    before = weights(t)
    for count in (1, 2):
        scalars = t.step()
        assert math.isnan(scalars["loss"])
        assert scalars["skipped"] == count
    assert all(torch.equal(v, before[k]) for k, v in weights(t).items())
    t.demos.action[:] = whole
    assert t.step()["skipped"] == 2.0  # goes on, and begins to count anew
    t.demos.action[:] = float("nan")
    t.step()
    t.step()
    with pytest.raises(DivergedError, match=r"loss nan.*at step 5; 3 steps in a row.*sft\.optimizer\.lr") as stop:
        t.step()
    assert stop.value.exit_code == 3
