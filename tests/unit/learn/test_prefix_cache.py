"""Prefixes that are kept train exactly as prefixes that are computed anew, whoever asks for them first."""

import copy
import logging

import pytest
import torch
from helpers.demonstrations import random_demos

from rlft.config.learning import OptimizerConfig, SftConfig
from rlft.config.schema import ModelConfig
from rlft.data.normalize import NormStats
from rlft.errors import ConfigError
from rlft.learn import prefix_cache
from rlft.learn.sft import SftTrainer
from rlft.policy.pretrained import build_policy

CPU = torch.device("cpu")
FRAMES = 96
LONG = "push the cube to the goal region from the left side"
KINDS = ("small", "small_pi05")


def trainer(kind="small", cache: bool | None = True, *, steps=6, batch_size=4, perturb=None, **changes) -> SftTrainer:
    torch.set_num_threads(1)
    data = random_demos((FRAMES // 2, FRAMES // 2), ("reach", LONG))
    model = ModelConfig(kind, small={"image_size": 28})
    policy = build_policy(model, NormStats.from_demos(data), horizon=3, device=CPU)
    with torch.no_grad():
        g = torch.Generator().manual_seed(3)
        for parameter in policy.parameters():  # π0.5's time enters through weights that begin at zero
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=g))
    if perturb is not None:
        policy.encode = perturb(policy.encode)
    how = {"warmup_steps": 1, "optimizer": OptimizerConfig(lr=3e-3), "train_expert_only": True} | changes
    cfg = SftConfig(steps=steps, batch_size=batch_size, cache_prefix=cache, **how)
    return SftTrainer(policy, data, cfg, seed=0)


def weights(t: SftTrainer) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in t.policy.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_those_of_encoding_anew(kind):
    kept, anew = trainer(kind, True), trainer(kind, False)
    assert anew.prefixes is None
    for _ in range(6):
        a, b = kept.step(), anew.step()
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        for p, q in zip(kept.parameters, anew.parameters, strict=True):
            torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-4)
        anew.policy.load_state_dict(kept.policy.state_dict())  # Adam makes much of the last bits of tiny gradients
    assert kept.prefixes._filled.any()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_frames_own_prefixes(kind):
    t = trainer(kind)
    index = torch.tensor([95, 0, 50, 50, 3])
    kept = t.prefixes.rows(index)
    fresh = t.policy.encode(t.policy.prepare(t.demos.rows(index).obs))
    assert torch.equal(kept.mask, fresh.mask)
    there = fresh.mask[:, None, None, None, :, None]  # what stands in padding is read by nobody
    torch.testing.assert_close(kept.kv * there, fresh.kv * there, atol=1e-6, rtol=1e-5)
    assert torch.equal(kept.state, fresh.state)


def test_only_blocks_that_were_asked_for_are_encoded_and_each_once():
    rows = []

    def counting(encode):
        def encode_and_count(inputs):
            rows.append(len(inputs))
            return encode(inputs)

        return encode_and_count

    t = trainer(perturb=counting)
    assert sum(rows) == 1  # one frame, to know its size
    block = t.prefixes.block
    assert 1 < block <= 16
    t.prefixes.rows(torch.tensor([0, block - 1, 2 * block]))
    assert rows[1:] == [block, block]
    t.prefixes.rows(torch.tensor([1, 2 * block + 1]))
    assert rows[1:] == [block, block]
    t.prefixes.rows(torch.arange(FRAMES))
    assert sum(rows[1:]) == FRAMES
    assert t.prefixes._filled.all()


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_is_exact_even_where_the_batch_decides_the_last_bits(kind):
    """An encoder that rounds differently for every number and order of rows; here greatly exaggerated."""

    def shaky(encode):
        def encode_with_rounding(inputs):
            prefix = encode(inputs)
            n = len(inputs)
            error = (1.0 + 0.01 * n + 0.001 * torch.arange(n)).view(n, *[1] * (prefix.kv.ndim - 1))
            prefix.kv = prefix.kv * error
            return prefix

        return encode_with_rounding

    whole = trainer(kind, perturb=shaky)
    whole.run(lambda step, scalars: None)
    first = trainer(kind, perturb=shaky)
    for _ in range(3):
        first.step()
    second = trainer(kind, perturb=shaky)
    second.policy.load_state_dict(first.policy.state_dict())
    second.load_state_dict(first.state_dict())
    second.run(lambda step, scalars: None)
    assert all(torch.equal(v, weights(second)[k]) for k, v in weights(whole).items())


def test_a_resumed_run_encodes_in_the_blocks_of_the_one_it_continues():
    first, second = trainer(), trainer()
    first.prefixes.set_block(first.prefixes.block + 1)  # as another device would choose
    for _ in range(3):
        first.step()
    second.policy.load_state_dict(first.policy.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.prefixes.block == first.prefixes.block
    assert not second.prefixes._filled.any()
    assert [first.step()["loss"] for _ in range(3)] == [second.step()["loss"] for _ in range(3)]


def test_a_gpu_encodes_more_frames_at_once():
    on_cpu = trainer()
    prefix = on_cpu.prefixes.rows(torch.tensor([0]))
    meta = prefix.map(lambda x: x.to("meta"))  # not the CPU
    cache = prefix_cache.PrefixCache(on_cpu.policy, on_cpu.demos, meta)
    assert cache.block * prefix.mask.shape[1] > 16000 > 60 * on_cpu.prefixes.block * prefix.mask.shape[1]


def test_resuming_with_another_choice_is_told(caplog):
    kept, anew = trainer(cache=True), trainer(cache=False)
    kept.load_state_dict(trainer(cache=True).state_dict())
    assert caplog.text == ""
    anew.load_state_dict(kept.state_dict())
    assert "sft.cache_prefix" in caplog.text


def test_a_long_prompt_that_comes_late_finds_room():
    t = trainer()
    short = t.prefixes.rows(torch.tensor([0]))
    assert t.prefixes.rows(torch.tensor([FRAMES - 1])).mask.shape == short.mask.shape
    assert int(short.mask.sum()) < short.mask.shape[1]


def test_null_keeps_them_where_they_fit_and_says_why(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    assert trainer(cache=None).prefixes is not None
    assert f"{FRAMES} frames x" in caplog.text
    caplog.clear()
    monkeypatch.setattr(prefix_cache, "free_bytes", lambda device: 1000)
    assert trainer(cache=None).prefixes is None
    assert "60% of the 0.00 GB free on cpu" in caplog.text


def test_the_limit_is_a_share_of_the_free_memory(monkeypatch):
    each = sum(x.numel() * x.element_size() for x in trainer().prefixes.rows(torch.tensor([0])).tensors().values())
    needed = each * FRAMES
    monkeypatch.setattr(prefix_cache, "free_bytes", lambda device: int(needed / 0.6) + 1)
    assert trainer(cache=None).prefixes is not None
    assert trainer(cache=None, train_expert_only=False).prefixes is None
    monkeypatch.setattr(prefix_cache, "free_bytes", lambda device: int(needed / 0.6) - 2)
    assert trainer(cache=None).prefixes is None
    assert trainer(cache=True).prefixes is not None
    monkeypatch.setattr(prefix_cache, "free_bytes", lambda device: needed - 1)
    with pytest.raises(ConfigError, match=r"96 frames x .* GB free on cpu .*sft.cache_prefix=null"):
        trainer(cache=True)
