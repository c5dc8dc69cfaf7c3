"""Generalised advantage estimation over action chunks: pure functions."""

from __future__ import annotations

import torch


def chunk_returns(rewards: torch.Tensor, gamma: float, gamma_per: str) -> torch.Tensor:
    """Reward of one chunk decision: ``sum_i g^i r_i`` with g = gamma per step, or 1 per chunk.

    Args:
        rewards: float32 ``[..., A]``, zero beyond the executed steps.
        gamma: discount.
        gamma_per: ``step`` or ``chunk``: what gamma discounts.

    Returns:
        float32 ``[...]``.
    """
    if gamma_per == "chunk":
        return rewards.sum(-1)
    weights = gamma ** torch.arange(rewards.shape[-1], dtype=rewards.dtype, device=rewards.device)
    return (rewards * weights).sum(-1)


def chunk_discounts(n_executed: torch.Tensor, gamma: float, gamma_per: str) -> torch.Tensor:
    """Discount from one decision to the next: ``gamma^n`` per step, ``gamma`` per chunk; float32, shape of n."""
    n = n_executed.to(torch.float32)
    return gamma**n if gamma_per == "step" else torch.full_like(n, gamma)


def gae(
    returns: torch.Tensor,
    discounts: torch.Tensor,
    values: torch.Tensor,
    final_values: torch.Tensor,
    terminated: torch.Tensor,
    truncated: torch.Tensor,
    invalid: torch.Tensor,
    gae_lambda: float,
) -> torch.Tensor:
    """Advantages of chunk decisions (Schulman et al., arXiv 1506.02438), with episode ends told apart.

    ``delta = R + g (1 - terminated) V(s') - V(s)``. Where the episode ends, or the rollout does, ``V(s')`` is the
    value of the observation after the chunk (``final_values``), never of the next episode's first one; a termination
    has none.
    An invalid chunk (the simulator failed in it) gets no advantage, and the one before it ends at its own ``V(s')``.

    Args:
        returns: float32 ``[T, E]``, chunk rewards.
        discounts: float32 ``[T, E]``, see :func:`chunk_discounts`.
        values: float32 ``[T, E]``, V of the observation decided on.
        final_values: float32 ``[T, E]``, V of the observation after the chunk; read where the chunk is truncated, and
            in the last row.
        terminated: bool ``[T, E]``.
        truncated: bool ``[T, E]``.
        invalid: bool ``[T, E]``.
        gae_lambda: lambda.

    Returns:
        float32 ``[T, E]``; zero where invalid.
    """
    if not returns.shape == discounts.shape == values.shape == final_values.shape:
        raise ValueError(f"[T, E] expected: {returns.shape}, {discounts.shape}, {values.shape}, {final_values.shape}")
    horizon = returns.shape[0]
    ended = terminated | truncated
    advantages = torch.zeros_like(returns)
    carry = torch.zeros_like(returns[0])
    for t in reversed(range(horizon)):
        last = t == horizon - 1
        next_values = final_values[t] if last else torch.where(ended[t], final_values[t], values[t + 1])
        delta = returns[t] + discounts[t] * next_values.masked_fill(terminated[t], 0.0) - values[t]
        carry = delta + discounts[t] * gae_lambda * carry.masked_fill(ended[t], 0.0)
        carry = carry.masked_fill(invalid[t], 0.0)
        advantages[t] = carry
    return advantages


def normalize_advantages(advantages: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Whiten over the whole rollout's valid entries (not per minibatch); invalid entries become 0."""
    chosen = advantages[valid]
    if chosen.numel() < 2:
        return torch.zeros_like(advantages)
    whitened = (advantages - chosen.mean()) / (chosen.std() + 1e-8)
    return whitened.masked_fill(~valid, 0.0)
