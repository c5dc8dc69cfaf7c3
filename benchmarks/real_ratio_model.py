"""π0 at sizes for the CPU whose prefix costs as many denoise steps as the real one's does: the model benchmarks' own.

What a stored prefix saves depends on one number, the work of encoding an observation over that of one denoise step. In
π0 with one camera it is about 36 at H = 50 and 169 at H = 10; here it is within a few per cent of both
(:func:`relative_ratio`, tested).
"""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from rlft.config.learning import ExplorationConfig
from rlft.config.schema import ModelConfig, RunConfig
from rlft.data.normalize import NormStats
from rlft.objective.ppo import PPO
from rlft.plan.meter import measure
from rlft.plan.network import Network, network_of
from rlft.policy.actor import Actor
from rlft.policy.denoise import make_schedule
from rlft.policy.heads import NoiseHead
from rlft.policy.pi0.factory import build_policy
from rlft.policy.pi0.policy import Pi0Policy
from rlft.types import Observation

CPU = torch.device("cpu")
CAMERA = "front"
INSTRUCTION = "Push the cube to the goal region."
STATE, ACTION, ACT_STEPS, DENOISE_STEPS = 9, 7, 5, 4
REAL_TOKENS = 16  # PaliGemma's of such an instruction
SIZES: dict[str, dict[str, int]] = {
    "wide": {  # for updates: as wide as the time allows, for what is not a product grows with the width alone
        "image_size": 140,
        "vlm_width": 1056,
        "expert_width": 176,
        "depth": 2,
        "head_dim": 16,
        "vision_width": 256,
        "vision_depth": 4,
    },
    "deep": {  # beside lerobot: deep enough that the prefix layer which it computes in vain does not count for much
        "image_size": 112,
        "vlm_width": 512,
        "expert_width": 80,
        "depth": 6,
        "head_dim": 16,
        "vision_width": 256,
        "vision_depth": 4,
    },
    "demo": {},  # the defaults, as in configs/policy/small.yaml; not at the real ratio
}


def threads(size: str) -> int:
    """Threads of torch's products: all cores, but one for matrices too small to share."""
    return 1 if size == "demo" else os.cpu_count() or 1


def settings_of(size: str, horizon: int, method: Any = "flow_noise") -> RunConfig:
    """The settings of a run with this model."""
    return RunConfig(
        model=ModelConfig(kind="small", small=dict(SIZES[size])),
        exploration=ExplorationConfig(method=method),
        n_action_steps=horizon,
        act_steps=ACT_STEPS,
        num_steps=DENOISE_STEPS,
    )


def network(size: str, horizon: int, tokens: int, method: str = "flow_sde") -> Network:
    """The model as shapes alone, which :mod:`rlft.plan` measures."""
    return network_of("train_rl", settings_of(size, horizon, method), tokens)


def real_network(horizon: int) -> Network:
    """π0 with one camera."""
    cfg = settings_of("demo", horizon, "flow_sde")
    return network_of("train_rl", replace(cfg, model=ModelConfig(kind="pi0")), REAL_TOKENS)


def ratio(net: Network) -> float:
    """Operations of one prefix over those of one denoise step, forward."""
    return net.encode.flops / net.denoise.flops


def relative_ratio(size: str, horizon: int, tokens: int) -> float:
    """This model's ratio over the real one's; 1 is the aim."""
    return ratio(network(size, horizon, tokens)) / ratio(real_network(horizon))


def update_ratio(size: str, horizon: int, tokens: int, method: str) -> float:
    """Operations of an update that encodes images over those of one that reads stored prefixes."""
    net = network(size, horizon, tokens, method)
    return net.train(1, "images").flops / net.train(1, "prefix").flops


def sampling_ratio(net: Network, tokens: int, steps: int) -> float:
    """Operations of lerobot's own sampler over ours, with K ``steps``; it pads prompts to ``tokens``."""
    policy: Any = net.policy
    seen = policy.blank_inputs(1, tokens)
    images = [image.float() for image in seen.images.unbind(1)]
    present, noise = [seen.token_mask[:, 0]] * len(images), seen.state.new_zeros(1, policy.horizon, policy.action_width)
    words = (images, present, seen.tokens, seen.token_mask, seen.state)
    with torch.no_grad():
        theirs = measure(lambda: policy.model.sample_actions(*words, noise=noise, num_steps=steps))
    return theirs.flops / (net.encode.flops + steps * net.denoise.flops)


def make_policy(size: str, horizon: int, *, train_vlm: bool = False) -> Pi0Policy:
    """A policy with random weights, the same ones in every call."""
    stats = NormStats(
        state_mean=(0.0,) * STATE,
        state_std=(1.0,) * STATE,
        action_mean=(0.0,) * ACTION,
        action_std=(1.0,) * ACTION,
        env_id="none",
        control_mode="none",
        cameras=(CAMERA,),
    )
    model = ModelConfig(kind="small", small=dict(SIZES[size]), train_vlm=train_vlm)
    policy = build_policy(model, stats, horizon=horizon, device=CPU)
    policy.prepare(observations(policy, 1))  # the tokenizer meets the prompt
    return policy


def make_ppo(policy: Pi0Policy, method: str, cfg: RunConfig | None = None) -> PPO:
    """PPO on the policy with its exploration and value heads, the same weights in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        noise = NoiseHead(policy.feature_dim, policy.action_width, 0.08, 0.16, learned=method == "flow_noise")
        actor = Actor(policy, noise, make_schedule(method, DENOISE_STEPS, 0.5), ACT_STEPS, policy.real_dims)
        return PPO(actor, cfg or RunConfig())


def observations(policy: Pi0Policy, n: int, seed: int = 0) -> Observation:
    """Random images at the model's resolution, and random states; n rows."""
    rng = np.random.default_rng(seed)
    side = policy.image_size
    images = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return Observation({CAMERA: images}, rng.normal(size=(n, STATE)).astype(np.float32), [INSTRUCTION] * n)


def facts(policy: Pi0Policy, size: str, horizon: int) -> dict[str, Any]:
    """What the rows say of the model."""
    tokens = policy.prompt_length
    sizes = network(size, horizon, tokens)
    return {
        "parameters": sum(p.numel() for p in policy.parameters()),
        "prompt_tokens": tokens,
        "prefix_tokens": sizes.prefix_tokens,
        "prefix_gflop": sizes.encode.flops / 1e9,
        "denoise_gflop": sizes.denoise.flops / 1e9,
        "prefix_over_denoise": ratio(sizes),
        "prefix_over_denoise_real": ratio(real_network(horizon)),
        "threads": torch.get_num_threads(),
    }


GROUPS = {  # by the beginning of the operator's name
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mkldnn_conv"),
    "attention": ("aten::_scaled_dot", "aten::_softmax", "aten::softmax"),
    "optimiser": ("Optimizer.step", "aten::lerp", "aten::addcmul", "aten::addcdiv", "aten::sqrt", "aten::_fused_adam"),
    "element-wise": (
        "aten::mul",
        "aten::add",
        "aten::gelu",
        "aten::pow",
        "aten::mean",
        "aten::rsqrt",
        "aten::native_l",
    ),
}


def time_shares(work: Callable[[], Any]) -> dict[str, float]:
    """Shares of one call's operator time, by kind of operator."""
    return operators(work)[0]


def operators(work: Callable[[], Any]) -> tuple[dict[str, float], int]:
    """Shares of one call's operator time by kind, and how many operators it starts, those inside others included."""
    import warnings

    from torch.profiler import ProfilerActivity, profile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the profiler warns about its own life cycle
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            work()
    times, calls = dict.fromkeys([*GROUPS, "other"], 0.0), 0
    for event in seen.key_averages():
        name = next((group for group, starts in GROUPS.items() if event.key.startswith(starts)), "other")
        times[name] += event.self_cpu_time_total
        calls += event.count
    total = sum(times.values())
    return {name: time / total for name, time in times.items()}, calls
