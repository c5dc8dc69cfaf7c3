"""What is measured on shapes alone, against modules that exist, closed forms, and lerobot's own sampler."""

import pytest
import torch
from torch import nn

from rlft.config.load import changed, load
from rlft.plan.meter import Meter, measure
from rlft.plan.network import network_of
from rlft.policy.pretrained import build_policy, save_pretrained

CPU, META = torch.device("cpu"), torch.device("meta")
ODD = "model.small={image_size: 42, kv_heads: 2, vlm_width: 96, expert_width: 48, depth: 3, mlp_ratio: 3, vocab: 500}"
ROWS = 6


def test_operations_of_a_layer_and_its_backward_pass_are_the_closed_form():
    layer, x = nn.Linear(5, 7, device=META), torch.zeros(3, 5, device=META, requires_grad=True)
    assert measure(lambda: layer(x)).flops == 2 * 3 * 5 * 7
    assert measure(lambda: layer(x).sum().backward()).flops == 3 * 2 * 3 * 5 * 7


def test_attention_keeps_no_weights():
    q, k = (torch.zeros(2, 4, n, 16, device=META) for n in (100, 300))
    cost = measure(lambda: nn.functional.scaled_dot_product_attention(q, k, k))
    assert cost.flops == 2 * 2 * (2 * 4 * 100 * 300 * 16)
    assert q.nbytes <= cost.peak < q.nbytes + 4 * 2 * 4 * 128 + 100  # its result, a sum per query, a seed
    before = nn.functional.scaled_dot_product_attention
    with pytest.raises(ZeroDivisionError):
        measure(lambda: 1 / 0)
    assert nn.functional.scaled_dot_product_attention is before


def test_live_bytes_follow_what_is_freed():
    with Meter() as live:
        a = torch.zeros(1000)
        b = a.view(10, 100)[2:]  # the same memory
        c = a + 1
        assert live.alive == 8000
        del a, c
        assert live.alive == 4000
        torch.zeros(100)
    assert (live.alive, live.peak) == (4000, 8000)
    del b
    assert live.alive == 0


def heads_of(net):
    own = {id(p) for p in net.policy.parameters()}
    return [p for p in net.objective.parameters() if id(p) not in own]


@pytest.mark.parametrize(
    "words",
    [
        ("policy=small",),
        ("policy=small_pi05", ODD, "model.dtype=bfloat16"),
        ("model.kind=their_policy.flow:FAMILY", "model.small={}", "task=toy"),
        ("policy=small", "train.objective=grpo", "task=toy", "env.n_steps_rollout=50"),
    ],
    ids=str,
)
@pytest.mark.parametrize("vlm", [False, True])
def test_parameters_are_those_of_a_model_that_exists(words, vlm):
    cfg = load("train_rl", [*words, f"model.train_vlm={vlm}", "critic.inputs=features"])
    net = network_of("train_rl", cfg)
    assert ("critic" in net.objective.heads()) == (cfg.train.objective == "ppo")
    heads = heads_of(net)
    real = build_policy(cfg.model, net.policy.stats, horizon=cfg.n_action_steps, device=CPU)
    trained, extra = real.actor_parameters(), sum(p.numel() for p in heads)
    assert net.count.trained == sum(p.numel() for p in trained) + sum(p.numel() for p in heads if p.requires_grad)
    assert sum(net.count) == sum(p.numel() for p in real.parameters()) + extra
    assert net.weight_bytes == sum(p.numel() * p.element_size() for p in real.parameters()) + 4 * extra
    low = sum(p.numel() for p in trained if p.dtype == torch.bfloat16)
    assert net.optimizer_bytes == 8 * net.count.trained + 4 * low
    # Dead is what gets no gradient from an action, however much trains.
    real.set_trainable(vlm=True)
    real.requires_grad_(True)
    prefix = real.encode(real.blank_inputs(1, 4))
    x, t = torch.ones(1, real.horizon, real.action_width), torch.full((1,), 0.5)
    real.velocity(prefix, x, t)[0].square().sum().backward()
    assert net.count.dead == sum(p.numel() for p in real.parameters() if p.grad is None)


def test_the_real_size_is_lerobots():
    """lerobot's own sampler, op by op; it finishes a last layer of the prefix, of which only keys are used."""
    net = network_of("train_rl", load("train_rl", ["policy=pi0", "exploration.method=flow_sde", "num_steps=3"]))
    heads = heads_of(net)
    assert sum(net.count) - sum(p.numel() for p in heads) == 4_028_019_472
    trained = {id(p) for p in net.trained}  # not the noise head, which flow_sde leaves alone
    assert net.count.trained - sum(p.numel() for p in heads if id(p) in trained) == 314_713_120
    inputs, language = net.policy.blank_inputs(1, net.tokens), net.policy.model.paligemma_with_expert.paligemma
    images = [image.float() for image in inputs.images.unbind(1)]
    words = (images, [inputs.token_mask[:, 0]], inputs.tokens, inputs.token_mask, inputs.state)
    noise = torch.zeros(1, net.policy.horizon, 32, device=META)
    with torch.no_grad():
        theirs = measure(lambda: net.policy.model.sample_actions(*words, noise=noise, num_steps=3)).flops
    last, n = language.model.language_model.layers[-1], net.prefix_tokens
    unused = [last.self_attn.q_proj, last.self_attn.o_proj, last.mlp]
    matrices = sum(p.numel() for module in unused for p in module.parameters())
    more = 2 * n * matrices + 4 * n * n * last.self_attn.q_proj.out_features
    assert theirs - more == pytest.approx(net.encode.flops + 3 * net.denoise.flops, rel=1e-3)


@pytest.mark.parametrize("kind", ["small", "small_pi05"])
def test_a_pass_grows_with_its_rows_and_keeps_less_where_it_is_recomputed(kind):
    words = [f"policy={kind}", "n_action_steps=10", "num_steps=2"]
    net = network_of("train_rl", load("train_rl", words))
    one, two, four = (net.train(n, "prefix") for n in (ROWS, 2 * ROWS, 4 * ROWS))
    assert two.flops == 2 * one.flops
    assert four.peak - two.peak == pytest.approx(2 * (two.peak - one.peak), rel=0.1)
    images = net.train(ROWS, "images")
    assert images.flops == one.flops + ROWS * net.encode.flops
    again = network_of("train_rl", load("train_rl", [*words, "model.gradient_checkpointing=true"]))
    assert again is not net
    assert again.train(ROWS, "prefix").peak < one.peak < images.peak
    assert 1.2 * one.flops < again.train(ROWS, "prefix").flops < 1.4 * one.flops
    more = net.train(ROWS, "prefix", more=True)
    assert one.peak < more.peak <= one.peak + net.gradient_bytes


def test_a_frozen_prefix_is_encoded_and_then_as_stored():
    """What is put together for a frozen prefix is what the whole pass measures."""
    net = network_of("train_rl", load("train_rl", ["policy=small", "n_action_steps=10"]))
    for more in (False, True):
        whole = measure(lambda more=more: net._train(ROWS, "images", more))
        assert net.train(ROWS, "images", more=more).flops == whole.flops
        # The update's images stay as long as its part of the minibatch.
        wanted = whole.peak + ROWS * sum(net.kept["images"])
        assert wanted * 0.98 <= net.train(ROWS, "images", more=more).peak <= wanted


def test_a_network_is_built_once_and_knows_what_changes_it():
    cfg = load("train_rl", ["policy=small"])
    net = network_of("train_rl", cfg)
    assert network_of("train_rl", changed(cfg, {"env.num_envs": 99, "seed": 5})) is net
    for words in (["num_steps=7"], ["env.cameras=[]"], ["buffer.prefix_dtype=bfloat16"], ["model.train_vlm=true"]):
        assert network_of("train_rl", load("train_rl", ["policy=small", *words])) is not net
    assert network_of("train_rl", cfg, tokens=40).prefix_tokens == net.prefix_tokens - net.tokens + 40


def test_a_checkpoint_says_what_is_trained(tmp_path):
    """train_rl builds what model.path describes, whatever model.kind says; train_sft builds model.kind."""
    cfg = load("train_rl", [f"model.path={tmp_path / 'made'}"])
    depth = len(network_of("train_rl", cfg).policy.model.paligemma_with_expert.gemma_expert.model.layers)
    assert depth == 2  # nothing there yet: the settings stand
    two = load("train_rl", ["policy=small_pi05", "env.cameras=[{name: a}, {name: b}]", "model.small={depth: 3}"])
    made = build_policy(two.model, network_of("train_rl", two).policy.stats, horizon=7, device=CPU)
    made.prompt_length = 31
    save_pretrained(made, tmp_path / "made")
    net = network_of("train_rl", cfg)
    policy = net.policy
    found = (policy.is_pi05, len(policy.model.paligemma_with_expert.gemma_expert.model.layers), policy.horizon)
    assert found == (True, 3, 7)
    assert (len(policy.cameras), net.tokens) == (2, 31)
    assert network_of("train_sft", cfg).policy.horizon == cfg.n_action_steps
