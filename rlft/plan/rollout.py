"""Bytes of a stored rollout."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlft.config.schema import RunConfig
from rlft.plan.network import ACTION_WIDTH, NetworkSize, network_of

FLOAT, INT, BOOL = 4, 8, 1


def rollout_bytes(
    cfg: RunConfig, policy: Any = None, *, store: str, privileged_dim: int, tokens: int | None = None
) -> int:
    """Bytes of the rollout buffer, advantages included; equals :meth:`rlft.rollout.buffer.Rollout.nbytes`.

    There is one, for the whole run. Where it is pinned it takes whole pages, at most one more than this per tensor.

    Args:
        cfg: settings.
        policy: the run's, of which a blank observation is encoded; None: as the settings describe it.
        store: ``prefix`` or ``images``.
        privileged_dim: P, or 0 where the critic does not read it.
        tokens: L, the padded length of the prompts; None where the tokenizer is not at hand: estimated
            (:func:`rlft.plan.network.network_of`).
    """
    decisions = cfg.env.n_steps_rollout // cfg.act_steps * cfg.env.num_envs
    if policy is not None:
        blank = policy.blank_inputs(1, tokens or policy.expected_prompt_length(cfg.env.instruction))
        rows = blank if store == "images" else policy.encode(blank)
        chain = (cfg.num_steps + 1) * policy.horizon * policy.action_width * FLOAT
        row = sum(x.nbytes for x in rows.tensors().values()) + chain + column_bytes(cfg, privileged_dim)
        return decisions * row
    network = network_of(cfg, tokens=tokens)
    seen = prefix_row_bytes(network, prefix_type(cfg, network)) if store == "prefix" else image_row_bytes(network)
    return decisions * (seen + decision_bytes(cfg, network, privileged_dim))


def prefix_type(cfg: RunConfig, network: NetworkSize) -> str:
    """The type of stored prefixes."""
    return network.dtype if cfg.buffer.prefix_dtype == "auto" else cfg.buffer.prefix_dtype


def prefix_row_bytes(network: NetworkSize, dtype: str) -> int:
    """A stored prefix (:class:`rlft.policy.base.Prefix`): keys, values, mask, state."""
    return network.kv_row_bytes(dtype) + network.prefix_tokens * BOOL + ACTION_WIDTH * FLOAT


def image_row_bytes(network: NetworkSize) -> int:
    """Stored model inputs (:class:`rlft.policy.base.PolicyInput`): pictures, prompt, mask, state."""
    pictures = network.cameras * 3 * network.vision.side**2
    return pictures + network.tokens * (INT + BOOL) + ACTION_WIDTH * FLOAT


def part_bytes(cfg: RunConfig, network: NetworkSize, *, store: str, privileged_dim: int) -> list[int]:
    """Bytes per row of every tensor that a minibatch gathers (:class:`rlft.rollout.buffer.MicroBatch`)."""
    if store == "prefix":
        seen = [network.kv_row_bytes(prefix_type(cfg, network)), network.prefix_tokens * BOOL]
    else:
        seen = [network.cameras * 3 * network.vision.side**2, network.tokens * INT, network.tokens * BOOL]
    latent, value, advantage, target = (FLOAT,) * 4
    stochastic_step, n_executed, action = INT, INT, cfg.act_steps * FLOAT
    columns = [chain_bytes(cfg, network), stochastic_step, n_executed, latent, action, value, advantage, target]
    return [*seen, ACTION_WIDTH * FLOAT, *columns, *([privileged_dim * FLOAT] if privileged_dim else [])]


def pinned_blocks(sizes: Iterable[int]) -> int:
    """What torch's pool of pinned host memory takes for tensors of these bytes: powers of two."""
    return sum(1 << (size - 1).bit_length() for size in sizes if size)


def chain_bytes(cfg: RunConfig, network: NetworkSize) -> int:
    """A denoising chain: K + 1 chunks."""
    return (cfg.num_steps + 1) * network.horizon * ACTION_WIDTH * FLOAT


def decision_bytes(cfg: RunConfig, network: NetworkSize, privileged_dim: int) -> int:
    """What is stored beside the observation."""
    return chain_bytes(cfg, network) + column_bytes(cfg, privileged_dim)


def column_bytes(cfg: RunConfig, privileged_dim: int) -> int:
    """What is stored beside observation and chain."""
    stochastic_step, n_executed = INT, INT
    latent, value, final_value, advantage, target = (FLOAT,) * 5
    terminated, truncated, invalid = (BOOL,) * 3
    columns = stochastic_step + n_executed + latent + value + final_value + advantage + target
    action = rewards = cfg.act_steps * FLOAT
    flags = terminated + truncated + invalid
    return columns + flags + action + rewards + privileged_dim * FLOAT
