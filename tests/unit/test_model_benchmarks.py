"""The model benchmarks compare like with like: the real ratio, equal numbers on both sides, bytes counted right."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import ppo_update, sample_actions, sft_step, update_memory
from benchmarks import real_ratio_model as model
from benchmarks.harness import Settings


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def brief(monkeypatch):
    """One call per measurement."""
    for module in (ppo_update, sample_actions, sft_step):
        monkeypatch.setattr(module, "SECONDS", 0.0)
    return Settings(quick=True)


@pytest.mark.parametrize("horizon", [10, 50])
@pytest.mark.parametrize("size", ["wide", "deep"])
def test_a_prefix_costs_as_many_denoise_steps_as_in_the_real_model(size, horizon):
    few, usual, many = (model.relative_ratio(size, horizon, tokens) for tokens in (8, 10, 16))
    assert [few, many] == pytest.approx([1.0, 1.0], abs=0.2)
    assert usual == pytest.approx(1.0, abs=0.05)
    assert model.relative_ratio("demo", horizon, 10) < 0.5  # not every size has it


def test_the_ratio_of_operations_is_the_known_one():
    chain = {h: model.update_ratio("wide", h, 10, "flow_noise") for h in (50, 10)}
    assert chain[50] == pytest.approx(4.0, abs=0.4)
    assert chain[10] == pytest.approx(15.5, abs=1.5)
    assert model.update_ratio("wide", 50, 10, "flow_sde_single") == pytest.approx(13.0, abs=1.3)


def test_lerobots_extra_operations_are_those_that_it_spends():
    from benchmarks.lerobot_side import lerobot_policy, make_batch

    policy = model.make_policy("demo", 5)
    obs, noise = model.observations(policy, 2), torch.zeros(2, 5, policy.action_width)
    batch = make_batch(policy, obs, token_length=48)
    counts = []
    for work in (
        lambda: lerobot_policy(policy, own_weights=False).predict_action_chunk(batch, noise=noise, num_steps=4),
        lambda: sample_actions.sample(policy, policy.prepare(obs), noise, 4),
    ):
        with FlopCounterMode(display=False) as counter:
            work()
        counts.append(counter.get_total_flops())
    wanted = model.sampling_ratio(model.network("demo", 5, policy.prompt_length), 48, 4)
    assert counts[0] / counts[1] == pytest.approx(wanted, rel=0.1)


def test_the_samplers_agree(brief):
    row = sample_actions.Cases("demo", 5, 1).plain(2, 4)
    assert row.facts["largest_difference"] < 1e-5
    assert row.facts["flop_ratio"] > row.facts["flop_ratio_with_prompts_of_own_length"] > 1.0
    assert row.pairs == len(row.facts["ratio_with_prompts_of_own_length"]) == 1


def test_shares_of_time_are_of_the_whole_and_calls_are_counted():
    a = torch.ones(200, 200)
    shares = model.time_shares(lambda: a @ a @ a)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["matrix products"] > 0.5
    calls = [model.operators(lambda n=n: [a * a for _ in range(n)])[1] for n in (1, 5)]
    assert calls[1] == 5 * calls[0]


@pytest.mark.parametrize("case", sft_step.GOALS)
def test_both_warm_ups_have_the_same_loss(case, brief):
    row = sft_step.compare("demo", case, 1)
    assert row.facts["loss_difference"] < 1e-6


def test_frozen_parts_stay_on_either_side():
    ours = sft_step.OurSide("demo", expert_only=True, cached=True)
    ours.fill()
    theirs = sft_step.LerobotSide(ours, token_length=48)
    cores = (ours.policy.model, theirs.policy.model)
    before = [{k: v.clone() for k, v in core.state_dict().items()} for core in cores]
    assert all(torch.equal(v, before[1][k]) for k, v in before[0].items())
    ours.step()
    theirs.step()
    for core, old in zip(cores, before):
        moved = {k for k, v in core.state_dict().items() if not torch.equal(v, old[k])}
        assert moved
        assert not any(k.startswith("paligemma_with_expert.paligemma.") for k in moved)


def test_updates_with_and_without_pictures_are_the_same_update(brief):
    sides = [ppo_update.Side("demo", 5, "flow_noise", prefix=prefix, batch=8) for prefix in (True, False)]
    scalars = [side.update(1) for side in sides]
    ppo_update.check_equal(*scalars)
    with pytest.raises(AssertionError, match="policy"):
        ppo_update.check_equal(scalars[0], scalars[1] | {"policy": scalars[1]["policy"] + 0.1})


def test_peak_memory_is_counted_and_repeatable():
    def work():
        a = torch.ones(1000, 1000)
        b = a + 1  # two at once
        del a
        return float((b * 2).sum())  # two again

    assert 8_000_000 <= update_memory.peak_bytes(work) < 8_100_000
    side = ppo_update.Side("demo", 5, "flow_noise", prefix=False, batch=8)
    side.update(1)
    peaks = [update_memory.peak_bytes(lambda: side.update(1)) for _ in range(2)]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.01)
    assert update_memory.peak_bytes(lambda: update_memory.joint_passes(side)) > 2 * peaks[0]
    assert not any(p.requires_grad for n, p in side.policy.named_parameters() if "paligemma.model" in n)
