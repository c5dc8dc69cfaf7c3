"""What a π0 policy promises: padding, absent cameras, frozen parts, precision, real sizes, the towers' own paths."""

import dataclasses

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pi0.modeling_pi0 import PI0Config, PI0Policy, PI0Pytorch
from pi0_cases import CPU, D, H, N, S, joint_velocity, make_chunk, make_observation, make_policy, make_stats

from rlft.config.schema import ModelConfig
from rlft.errors import ConfigError
from rlft.policy.base import TIME_OFFSET, TIME_SCALE, flow_times
from rlft.policy.pi0 import forward
from rlft.policy.pi0.factory import restore_buffers
from rlft.policy.pi0.family import SmallSize
from rlft.policy.pi0.small import SmallPI0
from rlft.policy.pretrained import build_policy, family_of


def sft_loss(policy):
    """Of actions that are zeros."""
    prefix, actions = policy.encode(policy.prepare(make_observation())), torch.zeros(N, H, 3)
    return policy.sft_loss(prefix, actions, torch.zeros(N, H, dtype=torch.bool), torch.Generator())


def test_padded_language_does_not_change_the_velocity():
    policy, (x, t) = make_policy(), make_chunk()
    short = policy.prepare(make_observation())
    policy.tokenizer.multiple = 40
    long = policy.prepare(make_observation())
    assert short.tokens.shape[1] < long.tokens.shape[1] == 40
    a, b = (policy.velocity(policy.encode(inputs), x, t)[0] for inputs in (short, long))
    torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)


def test_what_padded_positions_hold_does_not_matter():
    policy = make_policy()
    prefix, (x, t) = policy.encode(policy.prepare(make_observation())), make_chunk()
    assert not prefix.mask.all()
    before, _ = policy.velocity(prefix, x, t)
    noisy = dataclasses.replace(prefix, kv=prefix.kv + 100.0 * (~prefix.mask)[:, None, None, None, :, None])
    assert torch.equal(before, policy.velocity(noisy, x, t)[0])


def test_a_camera_that_is_not_the_policys_is_neither_needed_nor_encoded():
    policy = make_policy(cameras=("front",))
    obs = make_observation()
    with_both = policy.encode(policy.prepare(obs))
    del obs.images["wrist"]
    alone = policy.encode(policy.prepare(obs))
    assert torch.equal(with_both.kv, alone.kv)
    assert alone.mask.shape[1] == 16 + policy.prompt_length


def test_a_policy_without_cameras_runs_on_language_and_state():
    policy = make_policy(cameras=())
    prefix = policy.encode(policy.prepare(make_observation()))
    assert prefix.mask.shape[1] == policy.prompt_length
    assert policy.velocity(prefix, *make_chunk())[0].isfinite().all()


@pytest.mark.parametrize(("kind", "moves"), [("small", False), ("small_pi05", True)])
def test_only_the_prefix_of_pi05_holds_the_state(kind, moves):
    policy = make_policy(kind)
    one, other = make_observation(), make_observation()
    other.state = other.state * 0.0
    a, b = policy.prepare(one), policy.prepare(other)
    assert torch.equal(a.tokens, b.tokens) is not moves
    if not moves:
        kv = [policy.encode(inputs) for inputs in (a, b)]
        assert torch.equal(kv[0].kv, kv[1].kv)
        x, t = make_chunk()
        assert not torch.equal(policy.velocity(kv[0], x, t)[0], policy.velocity(kv[1], x, t)[0])


def test_frozen_vlm_gets_no_gradient_and_actor_parameters_are_what_trains():
    policy = make_policy()
    sft_loss(policy).backward()
    touched = {name for name, p in policy.named_parameters() if p.grad is not None and p.grad.any()}
    wanted = {name for name, p in policy.named_parameters() if any(p is q for q in policy.actor_parameters())}
    assert touched == wanted
    assert not any("paligemma.model" in name or "lm_head" in name for name in touched)
    parts = ("gemma_expert.model.layers.0", "state_proj", "action_time_mlp_in", "action_in_proj", "action_out_proj")
    for part in parts:
        assert any(part in name for name in touched)


def test_training_the_vlm_reaches_pictures_and_words_but_no_language_head():
    policy = make_policy(train_vlm=True)
    sft_loss(policy).backward()
    touched = {name for name, p in policy.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {name for name, p in policy.named_parameters() if p.requires_grad}
    assert any("vision_tower" in name for name in touched)
    assert any("embed_tokens" in name for name in touched)
    assert not any("lm_head" in name for name in touched)


def test_recomputing_activations_gives_the_same_gradients():
    grads = []
    for recompute in (False, True):
        policy = make_policy(train_vlm=True, gradient_checkpointing=recompute)
        sft_loss(policy).backward()
        grads.append([p.grad for p in policy.actor_parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-5)


def test_loss_does_not_see_padded_steps_or_foreign_action_dimensions():
    policy = make_policy(real_dims=[7, 3, 20])
    actions = torch.randn(N, H, 3)
    is_pad = torch.zeros(N, H, dtype=torch.bool)
    inputs = policy.prepare(make_observation())
    full = policy.sft_loss(policy.encode(inputs), actions, is_pad, torch.Generator().manual_seed(1))
    is_pad[:, 3:] = True
    assert policy.sft_loss(policy.encode(inputs), actions, is_pad, torch.Generator().manual_seed(1)) != full
    everything = policy.sft_loss(policy.encode(inputs), actions, torch.ones_like(is_pad), torch.Generator())
    assert everything == 0.0
    chunk = torch.zeros(1, H, D)
    chunk[..., [7, 3, 20]] = policy.actions_from_env(actions[:1])
    torch.testing.assert_close(policy.actions_to_env(chunk), actions[:1])


def test_state_dimensions_go_where_they_are_told():
    policy = make_policy(state_dims=[5, 4, 31, 0])
    obs = make_observation()
    state = policy.prepare(obs).state
    torch.testing.assert_close(state[:, [5, 4, 31, 0]], (torch.tensor(obs.state) - 0.1) / 0.5)
    assert int((state != 0).sum()) == N * S


def test_flow_times_follow_the_beta_distribution():
    times = (flow_times(20_000, torch.Generator().manual_seed(0)) - TIME_OFFSET) / TIME_SCALE
    beta = torch.distributions.Beta(torch.tensor(1.5), torch.tensor(1.0))
    assert (times.mean() - beta.mean).abs() < 0.005
    assert (times.var() - beta.variance).abs() < 0.002
    for edge in (0.2, 0.5, 0.9):  # Kolmogorov-Smirnov would allow 0.0115 at 1 %
        assert abs((times < edge).float().mean() - edge**1.5) < 0.01


@pytest.mark.parametrize("dims", [[0, 1], [0, 1, 1], [0, 1, 32]])
def test_wrong_action_dimensions_are_refused(dims):
    with pytest.raises(ConfigError, match="real_dims"):
        make_policy(real_dims=dims)


def test_a_prefix_that_does_not_divide_the_rows_is_refused():
    policy = make_policy()
    prefix = policy.encode(policy.prepare(make_observation()))
    with pytest.raises(ValueError, match="whole multiple"):
        policy.velocity(prefix, *make_chunk(N + 1))


def test_bfloat16_keeps_float32_buffers_and_comes_close_to_float32():
    obs, (x, t) = make_observation(), make_chunk()
    full, half = make_policy(), make_policy(dtype="bfloat16")
    assert half.model.paligemma_with_expert.gemma_expert.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    for name, buffer in half.named_buffers():
        assert buffer.dtype in (torch.float32, torch.int64), name
    frequencies = [p.model.paligemma_with_expert.gemma_expert.model.rotary_emb.inv_freq for p in (full, half)]
    assert torch.equal(*frequencies)
    a, b = (policy.velocity(policy.encode(policy.prepare(obs)), x, t)[0] for policy in (full, half))
    assert b.dtype == torch.float32
    assert (a - b).abs().max() < 0.05 * a.abs().max()


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_stream_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a, b, c = (build_policy(ModelConfig(), make_stats(), horizon=H, device=CPU, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    pairs = list(zip(a.parameters(), b.parameters(), c.parameters(), strict=True))
    assert all(torch.equal(x, y) for x, y, _ in pairs)
    assert any(not torch.equal(x, z) for x, _, z in pairs)


def test_real_pi0_builds_as_shapes_alone(tmp_path):
    make_policy().tokenizer.tokenizer.save_pretrained(tmp_path)
    meta = torch.device("meta")
    model = ModelConfig("pi0", tokenizer_path=str(tmp_path), dtype="bfloat16")
    policy = build_policy(model, make_stats(), horizon=50, device=meta)
    count = sum(p.numel() for p in policy.parameters())
    assert count == 4_028_019_472
    dead = sum(p.numel() for n, p in policy.named_parameters() if "lm_head" in n)
    assert dead == 257_152 * (2048 + 1024)
    assert sum(p.numel() for p in policy.actor_parameters()) == 314_713_120
    policy.config._save_pretrained(tmp_path)
    assert PreTrainedConfig.from_pretrained(tmp_path) == policy.config
    assert type(policy.config) is PI0Config
    policy.config.device = "meta"
    with meta:
        lerobot = PI0Policy(policy.config)
    assert set(policy.state_dict()) == set(lerobot.state_dict())
    for name, tensor in lerobot.state_dict().items():
        assert (policy.state_dict()[name].shape, policy.state_dict()[name].dtype) == (tensor.shape, tensor.dtype), name


def test_real_pi05_builds_as_shapes_alone(tmp_path):
    make_policy().tokenizer.tokenizer.save_pretrained(tmp_path)
    model = ModelConfig("pi05", tokenizer_path=str(tmp_path))
    policy = build_policy(model, make_stats(), horizon=50, device=torch.device("meta"))
    assert policy.is_pi05
    assert "model.time_mlp_in.weight" in dict(policy.named_parameters())


def test_restored_buffers_are_those_that_the_constructors_make():
    policy = make_policy()
    fresh = {name: buffer.clone() for name, buffer in SmallPI0(policy.config).named_buffers()}
    for _, module in policy.model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.full_like(buffer, 3)
    restore_buffers(policy.model)
    restored = dict(policy.model.named_buffers())
    assert set(restored) == set(fresh)
    assert len(restored) == 6
    for name, buffer in fresh.items():
        assert torch.equal(restored[name], buffer), name
        assert restored[name].dtype == buffer.dtype


def test_the_small_model_is_lerobots_architecture():
    with torch.device("meta"):
        real = PI0Pytorch(PI0Config())

    def first_layers(model):
        names = set(model.state_dict())
        return {n for n in names if ".layers." not in n or ".layers.0." in n}

    assert first_layers(make_policy().model) == first_layers(real)


@pytest.mark.parametrize(
    "wrong", [{"image_size": 60}, {"kv_heads": 3}, {"vision_width": 50}, {"head_dim": 15}, {"depth": 0}]
)
def test_impossible_sizes_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=f"model.small.{next(iter(wrong))}"):
        SmallSize(**wrong)


def test_unknown_size_and_kind_are_refused_with_what_is_known():
    with pytest.raises(ConfigError, match=r"widht.*vlm_width"):
        make_policy(small={"widht": 3})
    with pytest.raises(ConfigError, match=r"model\.small\.depth='2'"):
        make_policy(small={"depth": "2"})
    with pytest.raises(ConfigError, match=r"pi0.*pi05"):
        family_of("pi06")


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
