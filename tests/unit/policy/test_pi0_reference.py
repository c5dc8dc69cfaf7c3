"""The cached denoise path against lerobot's own passes, on the same weights."""

import pytest
import torch
from lerobot.policies.common.vla_utils import make_att_2d_masks, prepare_attention_masks_4d
from lerobot.policies.pi0.modeling_pi0 import PI0Policy
from pi0_cases import CAMERAS, H, N, joint_velocity, lerobot_prefix, make_chunk, make_observation, make_policy
from torch import nn
from transformers import DynamicCache


@pytest.fixture(params=[("small", {}), ("small", {"kv_heads": 2, "depth": 3}), ("small_pi05", {})], ids=str)
def policy(request):
    kind, sizes = request.param
    return make_policy(kind, train_vlm=True, small=sizes)


def test_prefix_then_denoise_equals_the_joint_forward(policy):
    inputs = policy.prepare(make_observation())
    x, t = make_chunk()
    velocity, features = policy.velocity(policy.encode(inputs), x, t)
    torch.testing.assert_close(velocity, joint_velocity(policy, inputs, x, t), atol=1e-5, rtol=1e-4)
    assert features.shape == (N, H, policy.feature_dim)
    assert velocity.dtype == features.dtype == torch.float32


def test_packed_prefix_is_lerobots_cache_and_gives_its_denoise_step(policy):
    inputs = policy.prepare(make_observation())
    prefix = policy.encode(inputs)
    embeds, mask, attention = policy.model.embed_prefix(*lerobot_prefix(inputs))
    _, cache = policy.model.paligemma_with_expert.forward(
        attention_mask=prepare_attention_masks_4d(make_att_2d_masks(mask, attention)),
        position_ids=torch.cumsum(mask, dim=1) - 1,
        inputs_embeds=[embeds, None],
        use_cache=True,
    )
    assert torch.equal(mask, prefix.mask)
    for layer, (key, value, _) in enumerate(cache):
        seen = mask[:, None, :, None]
        torch.testing.assert_close(prefix.kv[:, layer, 0] * seen, key * seen, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(prefix.kv[:, layer, 1] * seen, value * seen, atol=2e-6, rtol=1e-5)

    x, t = make_chunk()
    ours = DynamicCache(tuple((kv[:, 0], kv[:, 1]) for kv in prefix.kv.unbind(1)))
    state = () if policy.is_pi05 else (inputs.state,)
    theirs = policy.model.denoise_step(*state, mask, ours, x, t)
    torch.testing.assert_close(policy.velocity(prefix, x, t)[0], theirs, atol=2e-6, rtol=1e-5)


def test_gradients_through_one_shared_prefix_equal_joint_passes(policy):
    inputs = policy.prepare(make_observation())
    steps = 3
    x, t = make_chunk(N * steps)
    velocity, _ = policy.velocity(policy.encode(inputs), x, t)
    velocity.square().mean().backward()
    ours = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}

    policy.zero_grad()
    rows = torch.arange(N).repeat_interleave(steps)
    state = () if policy.is_pi05 else (inputs.state[rows],)
    # With noise = actions = x the joint loss is v squared, whatever t is.
    policy.model.forward(*lerobot_prefix(inputs[rows]), *state, x, x, t).mean().backward()
    theirs = {name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert set(theirs) <= set(ours)
    assert {name for name, grad in ours.items() if grad.any()} == set(theirs)
    floor = 1e-6 * max(
        float(grad.abs().max()) for grad in theirs.values()
    )  # attention ignores a key bias: pure rounding
    for name, grad in theirs.items():
        near = 1e-5 * float(grad.abs().max()) + floor
        torch.testing.assert_close(ours[name], grad, atol=near, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_flattened_rows_equal_the_loop_over_denoise_steps(policy):
    prefix = policy.encode(policy.prepare(make_observation()))
    steps = 4
    x, t = make_chunk(N * steps)
    flat, features = policy.velocity(prefix, x, t)
    for step in range(steps):
        rows = torch.arange(N) * steps + step
        one, one_features = policy.velocity(prefix, x[rows], t[rows])
        torch.testing.assert_close(flat[rows], one, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(features[rows], one_features, atol=5e-6, rtol=1e-5)


def test_ode_loop_equals_lerobots_predict_action_chunk():
    policy = make_policy()
    lerobot = PI0Policy.__new__(PI0Policy)  # its constructor builds the real size only
    nn.Module.__init__(lerobot)
    lerobot.config, lerobot.model = policy.config, policy.model
    lerobot.rtc_processor = None
    obs = make_observation()
    inputs = policy.prepare(obs)
    noise, _ = make_chunk()
    batch = {f"observation.images.{name}": torch.tensor(obs.images[name]).movedim(-1, 1) / 255.0 for name in CAMERAS}
    batch |= {
        "observation.state": (torch.tensor(obs.state) - 0.1) / 0.5,
        "observation.language.tokens": inputs.tokens,
        "observation.language.attention_mask": inputs.token_mask,
    }
    theirs = lerobot.predict_action_chunk(batch, noise=noise, num_steps=4)

    x, prefix = noise, policy.encode(inputs)
    for step in range(4):
        x = x - 0.25 * policy.velocity(prefix, x, torch.full((N,), 1.0 - step / 4))[0].detach()
    torch.testing.assert_close(x[..., :3], theirs, atol=5e-6, rtol=1e-5)


def test_sft_loss_is_lerobots_loss_over_real_dimensions_and_unpadded_steps(policy):
    inputs = policy.prepare(make_observation())
    actions = torch.randn(N, H, 3, generator=torch.Generator().manual_seed(5))
    is_pad = torch.zeros(N, H, dtype=torch.bool)
    is_pad[0, 2:] = is_pad[2, 4:] = True
    loss = policy.sft_loss(policy.encode(inputs), actions, is_pad, torch.Generator().manual_seed(7))

    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(N, H, 32, generator=generator)
    t = torch.rand(N, generator=generator) ** (1 / 1.5) * 0.999 + 0.001
    padded = torch.nn.functional.pad(actions, (0, 29))
    state = () if policy.is_pi05 else (inputs.state,)
    joint = policy.model.forward(*lerobot_prefix(inputs), *state, padded, noise, t)[..., :3].mean(-1)
    torch.testing.assert_close(loss, joint[~is_pad].mean(), atol=1e-5, rtol=1e-5)
