"""Parameters counted by arithmetic are those of the real modules, at every size."""

import pytest
import torch
from helpers.plan_cases import bare_policy

from rlft.config.load import load
from rlft.plan.network import network_of
from rlft.plan.parameters import count_parameters, critic_head, noise_head
from rlft.policy.critic import Critic
from rlft.policy.noise import NoiseHead
from rlft.policy.pi0.forward import dead_parameters

META = torch.device("meta")
ODD = "model.small={image_size: 42, kv_heads: 2, vlm_width: 96, expert_width: 48, depth: 3, mlp_ratio: 3, vocab: 500}"
CASES = [
    ("policy=small",),
    ("policy=small_pi05", "model.dtype=bfloat16"),
    ("policy=small", ODD),
    ("policy=small_pi05", ODD, "model.dtype=bfloat16"),
    ("policy=pi0",),
    ("policy=pi05", "model.dtype=float32"),
]


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_counts_and_bytes_equal_the_modules(overrides):
    cfg = load("train_rl", overrides)
    model = bare_policy(cfg, META).model
    dead = dead_parameters(model.paligemma_with_expert)
    counted = count_parameters(network_of(cfg))
    for part in ("prefix", "expert", "dead"):
        real = [
            parameter
            for name, parameter in model.named_parameters()
            if part == ("dead" if id(parameter) in dead else "prefix" if ".paligemma." in name else "expert")
        ]
        count = getattr(counted, part)
        assert count.total == sum(parameter.numel() for parameter in real), part
        assert count.nbytes(cfg.model.dtype) == sum(p.numel() * p.element_size() for p in real), part


@pytest.mark.parametrize("inputs", ["features", "privileged", "both"])
def test_heads(inputs):
    cfg = load("train_rl", [f"critic.inputs={inputs}"])
    size = network_of(cfg)
    features = size.expert.width if inputs != "privileged" else 0
    privileged = 11 if inputs != "features" else 0
    critic = Critic(features, privileged, cfg.critic.hidden_dims)
    assert critic_head(cfg, size, privileged) == sum(p.numel() for p in critic.parameters())
    noise = NoiseHead(size.expert.width, 32, 0.1, 0.2, learned=True)
    assert noise_head(size) == sum(p.numel() for p in noise.parameters())


def test_a_checkpoint_says_what_is_trained(tmp_path):
    """train_rl builds what model.path describes, whatever model.kind says; train_sft builds model.kind."""
    from rlft.policy.pi0.factory import build_policy
    from rlft.policy.pretrained import save_pretrained

    cfg = load("train_rl", [f"model.path={tmp_path / 'made'}"])
    assert network_of(cfg).depth == 2  # nothing there yet: the settings stand
    policy = bare_policy(load("train_rl", ["policy=small_pi05"]), torch.device("cpu"), cameras=2)
    made = build_policy("small_pi05", policy.stats, horizon=7, device=torch.device("cpu"), small={"depth": 3})
    save_pretrained(made, tmp_path / "made")
    size = network_of(cfg)
    assert (size.pi05, size.depth, size.horizon, size.cameras) == (True, 3, 7, 2)
    assert network_of(cfg, checkpoint=False).depth == 2
