"""The policy as PPO sees it: draw a denoising chain, and evaluate a stored chain again, by the same code."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from rlft.policy.base import FlowPolicy, Prefix
from rlft.policy.critic import Critic
from rlft.policy.denoise import (
    Schedule,
    normal_entropy,
    normal_log_prob,
    sum_over_dims,
    transition_mean,
)
from rlft.policy.noise import NoiseHead


@dataclass
class PolicySample:
    """One decision per row.

    Attributes:
        chain: float32 ``[n, K + 1, H, D]``, from noise (index 0) to the action chunk (index K).
        log_prob: float32 ``[n, A]``, per executed step, summed over denoise steps and real dimensions, nats.
        value: float32 ``[n]``.
        drawn_step: int64 ``[n]``, the stochastic step of a single-step sampler; 0 where all steps are.
        mean_std: float32 scalar, average std of the stochastic steps (for the log).
    """

    chain: torch.Tensor
    log_prob: torch.Tensor
    value: torch.Tensor
    drawn_step: torch.Tensor
    mean_std: torch.Tensor

    @property
    def actions(self) -> torch.Tensor:
        """The drawn chunk, model units, ``[n, H, D]``."""
        return self.chain[:, -1]


@dataclass
class ChainEvaluation:
    """A stored chain under the current weights; differentiable.

    Attributes:
        log_prob: float32 ``[n, A]``, as in :class:`PolicySample`.
        entropy: float32 ``[n]``, nats per drawn number (mean over steps and real dimensions).
        value: float32 ``[n]``.
    """

    log_prob: torch.Tensor
    entropy: torch.Tensor
    value: torch.Tensor


class ActorCritic(nn.Module):
    """A flow policy with its exploration noise and value head.

    Args:
        policy: the flow policy.
        noise: std head of flow_noise.
        critic: value head.
        schedule: the rollout's sampler.
        act_steps: A.
        act_dims: int64, the explored dimensions inside D: those that the log-probability is over.
        still_dims: int64, real dimensions that are executed but not explored (a gripper that the task never moves).
    """

    act_dims: torch.Tensor
    noise_mask: torch.Tensor

    def __init__(
        self,
        policy: FlowPolicy,
        noise: NoiseHead,
        critic: Critic,
        schedule: Schedule,
        act_steps: int,
        act_dims: torch.Tensor,
        still_dims: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.policy, self.noise, self.critic = policy, noise, critic
        self.schedule, self.act_steps = schedule, act_steps
        self.register_buffer("act_dims", act_dims, persistent=False)
        mask = torch.ones(policy.action_width)
        if still_dims is not None:
            mask[still_dims] = 0.0
        self.register_buffer("noise_mask", mask, persistent=False)

    def step_dist(
        self, prefix: Prefix, x: torch.Tensor, k: torch.Tensor, drawn: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Distribution of one denoise step; the only place where rollout and update meet the network.

        Args:
            prefix: n rows, or m with ``n = m * r`` (see FlowPolicy.velocity).
            x: float32 ``[n, H, D]``.
            k: int64 ``[n]``, index of the step of each row.
            drawn: bool ``[n]``; a row that is not drawn follows the ODE: take its mean, ignore its std.

        Returns:
            mean ``[n, H, D]``, std ``[n, H, D]``, features ``[n, H, F]``.
        """
        s = self.schedule
        velocity, features = self.policy.velocity(prefix, x, s.t[k])
        noise_coef = torch.where(drawn, s.noise_coef[k], s.t[k + 1])
        mean = transition_mean(x, velocity, s.t[k], s.t[k + 1], noise_coef)
        std = self.noise(features) if s.learned_std else s.std[k][:, None, None].expand_as(mean)
        return mean, std, features

    @torch.no_grad()
    def sample(
        self, prefix: Prefix, noise: torch.Tensor, drawn_step: torch.Tensor, privileged: torch.Tensor | None
    ) -> PolicySample:
        """Draw a chunk per row.

        Args:
            prefix: n rows.
            noise: float32 standard normal ``[n, K + 1, H, D]``: the start, then one draw per step.
            drawn_step: int64 ``[n]``, the stochastic step of a single-step sampler (ignored by the others).
            privileged: float32 ``[n, P]`` for the critic, or None.
        """
        s = self.schedule
        x = noise[:, 0]
        chain, log_prob, pooled, stds = [x], self._initial_log_prob(x), [], []
        for k in range(s.num_steps):
            drawn = (
                drawn_step == k if s.single else torch.full_like(drawn_step, k in s.stochastic_steps, dtype=torch.bool)
            )
            mean, std, features = self.step_dist(prefix, x, torch.full_like(drawn_step, k), drawn)
            x = torch.where(drawn[:, None, None], mean + std * self.noise_mask * noise[:, k + 1], mean)
            chain.append(x)
            if k in s.stochastic_steps:
                log_prob = log_prob + self._step_log_prob(x, mean, std).masked_fill(~drawn[:, None], 0.0)
                pooled.append(drawn[:, None] * self._pool(features))
                stds.append(std[:, : self.act_steps].index_select(-1, self.act_dims).mean())
        count = 1 if s.single else len(s.stochastic_steps)
        value = self.critic(torch.stack(pooled).sum(0) / count, privileged)
        return PolicySample(
            chain=torch.stack(chain, 1),
            log_prob=log_prob,
            value=value,
            drawn_step=drawn_step,
            mean_std=torch.stack(stds).mean(),
        )

    def evaluate(
        self, prefix: Prefix, chain: torch.Tensor, drawn_step: torch.Tensor, privileged: torch.Tensor | None
    ) -> ChainEvaluation:
        """Log-probability, entropy and value of stored chains; one network pass over all drawn steps at once.

        Args:
            prefix: n rows.
            chain: float32 ``[n, K + 1, H, D]``.
            drawn_step: int64 ``[n]``.
            privileged: float32 ``[n, P]`` or None.
        """
        s, n = self.schedule, chain.shape[0]
        every = torch.tensor(s.stochastic_steps, device=chain.device).expand(n, -1)
        steps = drawn_step[:, None] if s.single else every
        rows = torch.arange(n, device=chain.device)[:, None]
        x, x_next = chain[rows, steps].flatten(0, 1), chain[rows, steps + 1].flatten(0, 1)
        k = steps.flatten()
        mean, std, features = self.step_dist(prefix, x, k, torch.ones_like(k, dtype=torch.bool))
        r = steps.shape[1]
        log_prob = self._step_log_prob(x_next, mean, std).unflatten(0, (n, r)).sum(1)
        entropy = normal_entropy(std[:, : self.act_steps].index_select(-1, self.act_dims))
        pooled = self._pool(features).unflatten(0, (n, r)).mean(1)
        return ChainEvaluation(
            log_prob=self._initial_log_prob(chain[:, 0]) + log_prob,
            entropy=entropy.unflatten(0, (n, r)).mean((1, 2, 3)),
            value=self.critic(pooled, privileged),
        )

    def _pool(self, features: torch.Tensor) -> torch.Tensor:
        """Average suffix features over the executed steps, detached: ``[n, H, F] -> [n, F]``."""
        return features[:, : self.act_steps].detach().mean(1)

    def _step_log_prob(self, x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        """Log-density of one transition per executed step, ``[n, A]``."""
        a = slice(0, self.act_steps)
        return sum_over_dims(normal_log_prob(x[:, a], mean[:, a], std[:, a]), self.act_dims)

    def _initial_log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Log-density of the starting noise per executed step, ``[n, A]``; it cancels in every ratio."""
        start = x[:, : self.act_steps]
        return sum_over_dims(normal_log_prob(start, torch.zeros_like(start), torch.ones_like(start)), self.act_dims)
