"""Samplers of a flow policy and the exact log-probability of what they drew: pure functions.

Conventions: ``t = 1`` is noise, ``t = 0`` the action; ``x_t = t * noise + (1 - t) * action``, so the network's
velocity is ``v = noise - action`` and it predicts both ends of the flow::

    x0_hat = x - t * v             (the action)
    x1_hat = x + (1 - t) * v       (the noise)

Every sampler moves from t to t' < t by a Gaussian whose mean is a combination of the two ends::

    x' ~ Normal((1 - t') * x0_hat + c * x1_hat,  std^2)

===========  ==============================  ==============================================
sampler      c                               std
===========  ==============================  ==============================================
ode          t'                              0
flow_noise   t'                              learned, bounded (rlft.policy.noise)
flow_sde     t' - sigma^2 (t - t') / (2 t)   sigma * sqrt(t - t'), sigma = a sqrt(t / (1 - t))
flow_cps     t' cos(pi a / 2)                t' sin(pi a / 2)
===========  ==============================  ==============================================

Sources: flow_noise is ReinFlow (arXiv 2505.22094); flow_sde is Flow-GRPO's reverse SDE (arXiv 2505.05470), with one
random stochastic step per sample as the ``single`` variant (pi_RL, arXiv 2510.25889); flow_cps is
coefficients-preserving sampling (arXiv 2509.05952).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from rlft.policy.base import FlowPolicy, Prefix

LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Schedule:
    """The time grid and the coefficients of every denoise step of one sampler.

    Attributes:
        method: sampler name.
        t: float32 ``[K + 1]``, from 1 to 0.
        noise_coef: float32 ``[K]``, the factor c on the predicted noise.
        std: float32 ``[K]``; meaningless where ``learned_std``.
        learned_std: the std comes from a network (flow_noise).
        single: only one random step per sample is stochastic, the others follow the ODE.
    """

    method: str
    t: torch.Tensor
    noise_coef: torch.Tensor
    std: torch.Tensor
    learned_std: bool
    single: bool

    @property
    def num_steps(self) -> int:
        """K."""
        return int(self.noise_coef.shape[0])

    @property
    def stochastic_steps(self) -> tuple[int, ...]:
        """The steps that can draw noise; the log-probability is over these."""
        return tuple(k for k in range(self.num_steps) if self.learned_std or float(self.std[k]) > 0.0)

    def to(self, device: torch.device) -> Schedule:
        """Copy to a device."""
        tensors = {name: getattr(self, name).to(device) for name in ("t", "noise_coef", "std")}
        return Schedule(method=self.method, learned_std=self.learned_std, single=self.single, **tensors)


def time_grid(num_steps: int) -> torch.Tensor:
    """``t_k = 1 - k / K`` for k = 0..K, float32 ``[K + 1]``."""
    return torch.arange(num_steps, -1, -1, dtype=torch.float32) / num_steps


def make_schedule(method: str, num_steps: int, level: float) -> Schedule:
    """Tabulate a sampler.

    Args:
        method: ``ode``, ``flow_noise``, ``flow_sde``, ``flow_sde_single`` or ``flow_cps``.
        num_steps: K.
        level: the noise level a of flow_sde and flow_cps; unused elsewhere.

    Raises:
        ValueError: unknown method.
    """
    grid = time_grid(num_steps).double()
    t, t_next = grid[:-1], grid[1:]
    step = t - t_next
    zeros = torch.zeros_like(t)
    if method in ("ode", "flow_noise"):
        coef, std = t_next, zeros
    elif method in ("flow_sde", "flow_sde_single"):
        # sigma is infinite at t = 1: there the denominator takes the value of the next grid point.
        remaining = torch.where(t >= 1.0, 1.0 - t_next, 1.0 - t)
        sigma = level * (t / remaining).sqrt()
        coef, std = t_next - sigma.square() * step / (2.0 * t), sigma * step.sqrt()
    elif method == "flow_cps":
        angle = math.pi * level / 2.0
        coef, std = t_next * math.cos(angle), t_next * math.sin(angle)
    else:
        allowed = "ode, flow_noise, flow_sde, flow_sde_single, flow_cps"
        raise ValueError(f"exploration.method={method!r} is not a sampler; allowed: {allowed}")
    return Schedule(
        method=method,
        t=grid.float(),
        noise_coef=coef.float(),
        std=std.float(),
        learned_std=method == "flow_noise",
        single=method == "flow_sde_single",
    )


def transition_mean(
    x: torch.Tensor, velocity: torch.Tensor, t: torch.Tensor, t_next: torch.Tensor, noise_coef: torch.Tensor
) -> torch.Tensor:
    """Mean of one denoise step, ``(1 - t') x0_hat + c x1_hat``.

    Args:
        x: float32 ``[n, H, D]`` at time t.
        velocity: float32 ``[n, H, D]``, noise minus action.
        t: float32 ``[n]``.
        t_next: float32 ``[n]``.
        noise_coef: float32 ``[n]``, the sampler's c.

    Returns:
        float32 ``[n, H, D]``.
    """
    t, t_next, noise_coef = (a[:, None, None] for a in (t, t_next, noise_coef))
    x0_hat = x - t * velocity
    x1_hat = x + (1.0 - t) * velocity
    return (1.0 - t_next) * x0_hat + noise_coef * x1_hat


def normal_log_prob(x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Element-wise log-density of a normal with positive std, in nats; shapes broadcast."""
    return -0.5 * ((x - mean) / std).square() - std.log() - 0.5 * LOG_2PI


def normal_entropy(std: torch.Tensor) -> torch.Tensor:
    """Element-wise differential entropy of a normal, in nats."""
    return 0.5 + 0.5 * LOG_2PI + std.log()


def sum_over_dims(elements: torch.Tensor, act_dims: torch.Tensor) -> torch.Tensor:
    """Sum over the robot's real action dimensions: ``[..., H, D] -> [..., H]``.

    Padded dimensions carry noise that no actuator sees; their density is left out by index, never by position.
    """
    return elements.index_select(-1, act_dims).sum(-1)


def reduce_log_prob(per_step: torch.Tensor, n_executed: torch.Tensor) -> torch.Tensor:
    """Joint log-probability of the executed part of the chunk, in nats.

    Args:
        per_step: float32 ``[n, A]``: log-prob of each action step, all denoise steps summed.
        n_executed: int64 ``[n]``; later steps never reached the robot and do not count.

    Returns:
        float32 ``[n]``.
    """
    steps = torch.arange(per_step.shape[1], device=per_step.device)
    executed = steps[None, :] < n_executed[:, None]
    return (per_step * executed).sum(-1)


def log_prob_terms(schedule: Schedule, act_steps: int, real_dims: int) -> int:
    """Number of densities inside a full chunk's joint log-prob; the divisor of the averaged (parity) mode.

    The initial draw counts as one denoise step more: ``(K + 1) * A * d``.
    """
    drawn = 1 if schedule.single else len(schedule.stochastic_steps)
    return (drawn + 1) * act_steps * real_dims


@torch.no_grad()
def integrate_ode(policy: FlowPolicy, prefix: Prefix, noise: torch.Tensor, num_steps: int) -> torch.Tensor:
    """Deterministic denoising by Euler steps, for evaluation.

    Args:
        policy: the flow policy.
        prefix: n rows.
        noise: float32 ``[n, H, D]``, the start.
        num_steps: number of Euler steps.

    Returns:
        the action chunk, model units, ``[n, H, D]``.
    """
    schedule, x = make_schedule("ode", num_steps, 0.0).to(noise.device), noise
    for k in range(num_steps):
        t, t_next, c = (a.expand(len(x)) for a in (schedule.t[k], schedule.t[k + 1], schedule.noise_coef[k]))
        velocity, _ = policy.velocity(prefix, x, t)
        x = transition_mean(x, velocity, t, t_next, c)
    return x
