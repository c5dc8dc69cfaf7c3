"""Generalised advantage estimation over action chunks: pure functions."""

import torch
from torch import Tensor


def chunk_returns(rewards: Tensor, gamma: float, gamma_per: str) -> Tensor:
    """Reward of one chunk decision: ``sum_i g^i r_i`` with g = gamma per step, or 1 per chunk; float32 ``[...]``.

    ``rewards`` are float32 ``[..., A]``, zero beyond the executed steps.
    """
    if gamma_per == "chunk":
        return rewards.sum(-1)
    weights = gamma ** torch.arange(rewards.shape[-1], dtype=rewards.dtype, device=rewards.device)
    return (rewards * weights).sum(-1)


def chunk_discounts(n_executed: Tensor, gamma: float, gamma_per: str) -> Tensor:
    """Discount from one decision to the next: ``gamma^n`` per step, ``gamma`` per chunk; float32, shape of n."""
    n = n_executed.to(torch.float32)
    return gamma**n if gamma_per == "step" else torch.full_like(n, gamma)


def gae(
    returns: Tensor,
    discounts: Tensor,
    values: Tensor,
    final_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    invalid: Tensor,
    gae_lambda: float,
) -> Tensor:
    """Advantages of chunk decisions (Schulman et al., arXiv 1506.02438), with episode ends told apart; all ``[T, E]``.

    ``delta = R + g (1 - terminated) V(s') - V(s)``. Where the episode ends, or the rollout does, ``V(s')`` is the
    value of the observation after the chunk (``final_values``), never of the next episode's first one; a termination
    has none.
    An invalid chunk (the simulator failed in it) gets no advantage (zero), and the one before it ends at its own
    ``V(s')``. Chunk rewards R and discounts g are those of :func:`chunk_returns` and :func:`chunk_discounts`;
    ``values`` are V of the observations decided on, and ``final_values`` are read where a chunk is truncated, and in
    the last row.
    """
    if not returns.shape == discounts.shape == values.shape == final_values.shape:
        raise ValueError(f"[T, E] expected: {returns.shape}, {discounts.shape}, {values.shape}, {final_values.shape}")
    ended = terminated | truncated
    following = torch.where(ended[:-1], final_values[:-1], values[1:])  # V(s') of all but the last row
    following = torch.cat([following, final_values[-1:]]).masked_fill(terminated, 0.0)
    deltas = returns + discounts * following - values
    advantages, carry = torch.zeros_like(returns), torch.zeros_like(returns[0])
    for t in reversed(range(len(returns))):
        carry = deltas[t] + discounts[t] * gae_lambda * carry.masked_fill(ended[t], 0.0)
        advantages[t] = carry = carry.masked_fill(invalid[t], 0.0)
    return advantages


def normalize_advantages(advantages: Tensor, valid: Tensor) -> Tensor:
    """Whiten over the whole rollout's valid entries (not per minibatch); invalid entries become 0."""
    chosen = advantages[valid]
    if chosen.numel() < 2:
        return torch.zeros_like(advantages)
    whitened = (advantages - chosen.mean()) / (chosen.std() + 1e-8)
    return whitened.masked_fill(~valid, 0.0)
