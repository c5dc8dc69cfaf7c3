"""The towers' own paths: nothing masked, everything masked, rounded prefixes."""

import pytest
import torch
from pi0_cases import N, joint_velocity, make_chunk, make_observation, make_policy

from rlft.policy.pi0 import forward

KINDS = pytest.mark.parametrize("kind", ["small", "small_pi05"])


def same_prompts(seed=0):
    obs = make_observation(seed=seed)
    obs.task = [obs.task[0]] * N
    return obs


def test_without_padding_no_mask_is_made_and_the_joint_forward_is_met():
    policy = make_policy(train_vlm=True)
    inputs = policy.prepare(same_prompts())
    assert inputs.token_mask.all()
    x, t = make_chunk()
    velocity, _ = policy.velocity(policy.encode(inputs), x, t)
    torch.testing.assert_close(velocity, joint_velocity(policy, inputs, x, t), atol=1e-5, rtol=1e-4)


@KINDS
def test_the_suffix_is_embedded_as_by_lerobot_bit_for_bit(kind):
    policy, (x, t) = make_policy(kind), make_chunk()
    state = None if policy.is_pi05 else policy.prepare(make_observation()).state
    tokens, _, _, cond = policy.model.embed_suffix(*([] if state is None else [state]), x, t)
    ours, our_cond = forward.embed_suffix(policy.model, state, x, t)
    assert torch.equal(ours, tokens)
    assert our_cond is cond is None or torch.equal(our_cond, cond)


@KINDS
def test_masked_prefix_tokens_change_nothing_whatever_they_hold(kind):
    policy = make_policy(kind)
    prefix = policy.encode(policy.prepare(make_observation()))
    assert not prefix.mask.all()
    x, t = make_chunk(2 * N)
    clean, _ = policy.velocity(prefix, x, t)
    kv = torch.where(prefix.mask[:, None, None, None, :, None], prefix.kv, 1e3 * torch.ones_like(prefix.kv))
    prefix.kv = kv
    assert torch.equal(policy.velocity(prefix, x, t)[0], clean)


def test_an_observation_without_any_visible_token_gives_numbers():
    policy = make_policy()
    prefix = policy.encode(policy.prepare(make_observation()))
    prefix.mask = torch.zeros_like(prefix.mask)
    x, t = make_chunk()
    assert torch.isfinite(policy.velocity(prefix, x, t)[0]).all()


@KINDS
def test_a_prefix_in_bfloat16_is_read_alike_whether_stored_or_fresh(kind):
    policy = make_policy(kind)
    inputs, (x, t) = policy.prepare(make_observation()), make_chunk()
    exact = policy.encode(inputs)
    policy.prefix_dtype = torch.bfloat16
    rounded = policy.encode(inputs)
    assert rounded.kv.dtype == torch.bfloat16
    assert torch.equal(rounded.kv, exact.kv.to(torch.bfloat16))
    velocity, _ = policy.velocity(rounded, x, t)
    near, _ = policy.velocity(exact, x, t)
    assert velocity.dtype == torch.float32
    assert 0.0 < float((velocity - near).detach().abs().max()) < 0.05
    widened = exact.map(lambda part: part)
    widened.kv = rounded.kv.float()
    assert torch.equal(policy.velocity(widened, x, t)[0], velocity)


def test_suffix_rows_of_one_observation_do_not_see_each_other():
    policy = make_policy()
    prefix = policy.encode(policy.prepare(make_observation()))
    x, t = make_chunk(3 * N)
    before, _ = policy.velocity(prefix, x, t)
    changed = x.clone()
    changed[1] += 1.0  # the second of the first observation's three chunks
    after, _ = policy.velocity(prefix, changed, t)
    others = [i for i in range(3 * N) if i != 1]
    assert torch.equal(after[others], before[others])
    assert not torch.equal(after[1], before[1])
