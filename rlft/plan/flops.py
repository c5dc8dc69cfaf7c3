"""Floating-point operations, two per multiply-add, of matrix products and attention; the rest is small beside them.

A backward pass costs twice its forward pass: gradients of inputs and of weights. What the fused attention kernels
compute anew in theirs is not counted. Gradient checkpointing adds the layers' forward pass once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from rlft.config.schema import RunConfig
from rlft.plan.network import ACTION_WIDTH, NetworkSize, Tower
from rlft.plan.parameters import NOISE_HIDDEN
from rlft.policy.pi0.family import PATCH


@dataclass(frozen=True)
class RunFlops:
    """Costs of a run.

    Attributes:
        prefix: encode one observation.
        denoise: one denoise step of one decision, forward.
        update_stored: one decision through the update where its prefix is stored.
        update_recomputed: the same where the prefix is computed again.
        update: the same as this run does it.
        rollout: one rollout, all environments.
        updates: all epochs over it.
        sft_step: one optimiser step of the warm-up.
        sft_encode: encode one frame once, where the warm-up keeps prefixes; else 0.
    """

    prefix: int
    denoise: int
    update_stored: int
    update_recomputed: int
    update: int
    rollout: int
    updates: int
    sft_step: int
    sft_encode: int

    @property
    def speedup(self) -> float:
        """How much less an update computes with a stored prefix than with one that is computed again."""
        return self.update_recomputed / self.update_stored


def run_flops(cfg: RunConfig, size: NetworkSize, *, store: str, cached: bool) -> RunFlops:
    """Count.

    Args:
        cfg: settings.
        size: the network.
        store: what the buffer keeps, ``prefix`` or ``images``.
        cached: whether the warm-up keeps encoded prefixes.
    """
    checkpointing, steps = cfg.model.gradient_checkpointing, update_steps(cfg)
    prefix = prefix_forward(size)
    stored = _trained_expert(size, steps, checkpointing) + 3 * steps * _noise(cfg, size)
    recomputed = stored + (_trained_prefix(size, checkpointing) if cfg.model.train_vlm else prefix)
    update = stored if store == "prefix" else recomputed
    decision = prefix + cfg.num_steps * (denoise_forward(size) + _noise(cfg, size))
    rows = cfg.env.n_steps_rollout // cfg.act_steps * cfg.env.num_envs
    frozen = cfg.sft.train_expert_only
    sft_prefix = (0 if cached else prefix) if frozen else _trained_prefix(size, checkpointing)
    return RunFlops(
        prefix=prefix,
        denoise=denoise_forward(size),
        update_stored=stored,
        update_recomputed=recomputed,
        update=update,
        rollout=(rows + final_values(cfg)) * decision,
        updates=rows * cfg.train.update_epochs * update,
        sft_step=cfg.sft.batch_size * (_trained_expert(size, 1, checkpointing) + sft_prefix),
        sft_encode=prefix if frozen and cached else 0,
    )


def update_steps(cfg: RunConfig) -> int:
    """Denoise steps that an update evaluates: the stochastic ones of the chain."""
    last_is_certain = cfg.exploration.method == "flow_cps"
    return 1 if cfg.exploration.method == "flow_sde_single" else cfg.num_steps - last_is_certain


def final_values(cfg: RunConfig) -> int:
    """Observations valued beside the decisions: those at the rollout's end, and at most one per time limit."""
    return cfg.env.num_envs * (1 + (cfg.env.n_steps_rollout - 1) // cfg.env.max_episode_len)


def prefix_forward(size: NetworkSize) -> int:
    """Keys and values of one observation."""
    n, tower = size.prefix_tokens, size.language
    layers = (size.depth - 1) * _layer(size, tower, n, seen=n)
    last = 2 * n * tower.width * 2 * size.kv_heads * size.head_dim
    return size.cameras * _vision(size) + layers + last


def denoise_forward(size: NetworkSize, shared: int = 1) -> int:
    """One denoise step of one decision.

    Args:
        size: the network.
        shared: r, the steps of one decision that pass together; each sees, masked, the others' suffixes too.
    """
    s = size.suffix_tokens
    layers = size.depth * _layer(size, size.expert, s, seen=size.prefix_tokens + shared * s)
    return layers + _time(size) + _ends(size) + size.horizon * _mlp((size.expert.width, ACTION_WIDTH))


def _trained_expert(size: NetworkSize, steps: int, checkpointing: bool) -> int:
    """Forward and backward through ``steps`` denoise steps of one decision."""
    tokens, tower = size.suffix_tokens, size.expert
    # Nothing asks for the gradient of the chunk, of the state, or of π0.5's sinusoids of time.
    backward = 2 * denoise_forward(size, steps) - _ends(size) - size.pi05 * _mlp((tower.width, tower.width))
    again = size.depth * _layer(size, tower, tokens, seen=size.prefix_tokens + steps * tokens)
    if size.pi05:
        again += 2 * size.depth * _mlp((tower.width, 3 * tower.width))
    else:
        again -= size.depth * tokens * _mlp((tower.mlp, tower.width))  # only π0.5's gate needs its result
    return steps * (denoise_forward(size, steps) + backward + checkpointing * again)


def _trained_prefix(size: NetworkSize, checkpointing: bool) -> int:
    """Forward and backward through SigLIP and the language tower."""
    n, v, tower = size.prefix_tokens, size.vision, size.language
    pixels = size.cameras * v.patches * _mlp((3 * PATCH**2, v.width))
    again = (size.depth - 1) * (_layer(size, tower, n, seen=n) - n * _mlp((tower.mlp, tower.width)))
    again += size.cameras * (_vision(size) - v.patches * _mlp((v.width, tower.width)))
    return 3 * prefix_forward(size) - pixels + checkpointing * again


def _vision(size: NetworkSize) -> int:
    """One picture."""
    v = size.vision
    patches = v.patches * _mlp((3 * PATCH**2, v.width))
    attention = v.patches * 4 * _mlp((v.width, v.width)) + 4 * v.patches**2 * v.width
    layers = v.depth * (attention + v.patches * _mlp((v.width, v.mlp, v.width)))
    return patches + layers + v.patches * _mlp((v.width, size.language.width))


def _layer(size: NetworkSize, tower: Tower, tokens: int, *, seen: int) -> int:
    """One Gemma layer over ``tokens`` of a row that attend to ``seen``."""
    queries, keys = size.heads * size.head_dim, size.kv_heads * size.head_dim
    matrices = 2 * tokens * tower.width * (2 * queries + 2 * keys + 3 * tower.mlp)
    return matrices + 4 * tokens * seen * queries


def _time(size: NetworkSize) -> int:
    w = size.expert.width
    if size.pi05:  # the condition, and the scale, shift and gate of every norm
        return _mlp((w, w, w)) + (2 * size.depth + 1) * _mlp((w, 3 * w))
    return size.horizon * _mlp((2 * w, w, w))


def _ends(size: NetworkSize) -> int:
    """Projections of the data itself: the noisy chunk, and π0's state."""
    return (size.horizon + (not size.pi05)) * _mlp((ACTION_WIDTH, size.expert.width))


def _noise(cfg: RunConfig, size: NetworkSize) -> int:
    if cfg.exploration.method != "flow_noise" or not cfg.exploration.learn_std:
        return 0
    return size.horizon * _mlp((size.expert.width, NOISE_HIDDEN, ACTION_WIDTH))


def _mlp(widths: tuple[int, ...]) -> int:
    """Linear layers, of one token."""
    return sum(2 * a * b for a, b in pairwise(widths))
