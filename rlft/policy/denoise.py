"""Samplers of a flow policy and the log-probability of what they drew: pure functions.

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
flow_noise   t'                              learned, bounded (rlft.policy.heads)
flow_sde     t' - sigma^2 (t - t') / (2 t)   sigma * sqrt(t - t'), sigma = a sqrt(t / (1 - t))
flow_cps     t' cos(pi a / 2)                t' sin(pi a / 2)
===========  ==============================  ==============================================

Sources: flow_noise is ReinFlow (arXiv 2505.22094); flow_sde is Flow-GRPO's reverse SDE (arXiv 2505.05470), with one
random stochastic step per sample as the ``single`` variant (pi_RL, arXiv 2510.25889); flow_cps is
coefficients-preserving sampling (arXiv 2509.05952).

Shapes: n rows, K denoise steps, H predicted and A executed action steps, D numbers in each, d of them the robot's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rlft.policy.base import FlowPolicy, Prefix

LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Schedule:
    """The time grid and the coefficients of every denoise step of one sampler."""

    method: str  # sampler name
    t: Tensor  # float32 `[K + 1]`, `t_k = 1 - k / K`: from 1 to 0
    noise_coef: Tensor  # float32 `[K]`, the factor c on the predicted noise
    std: Tensor  # float32 `[K]`; meaningless where `learned_std`
    stochastic_steps: tuple[int, ...]  # the steps that can draw noise, ascending; the log-probability is over these
    learned_std: bool  # the std comes from a network (flow_noise)
    single: bool  # only one random step per sample is stochastic, the others follow the ODE

    @property
    def num_steps(self) -> int:
        """K."""
        return int(self.noise_coef.shape[0])

    def to(self, device: torch.device) -> Schedule:
        """Copy to a device."""
        return replace(self, t=self.t.to(device), noise_coef=self.noise_coef.to(device), std=self.std.to(device))


def make_schedule(method: str, num_steps: int, noise_level: float) -> Schedule:
    """Tabulate a sampler over K steps; ``noise_level`` is the a of flow_sde and flow_cps. ValueError: no such."""
    grid = (torch.arange(num_steps, -1, -1, dtype=torch.float32) / num_steps).double()
    t, t_next = grid[:-1], grid[1:]
    step = t - t_next
    if method in ("ode", "flow_noise"):
        coef, std = t_next, torch.zeros_like(t)
    elif method in ("flow_sde", "flow_sde_single"):
        # sigma is infinite at t = 1: there the denominator takes the value of the next grid point.
        remaining = torch.where(t >= 1.0, 1.0 - t_next, 1.0 - t)
        sigma = noise_level * (t / remaining).sqrt()
        coef, std = t_next - sigma.square() * step / (2.0 * t), sigma * step.sqrt()
    elif method == "flow_cps":
        angle = math.pi * noise_level / 2.0
        coef, std = t_next * math.cos(angle), t_next * math.sin(angle)
    else:
        allowed = "ode, flow_noise, flow_sde, flow_sde_single, flow_cps"
        raise ValueError(f"exploration.method={method!r} is not a sampler; allowed: {allowed}")
    learned, single = method == "flow_noise", method == "flow_sde_single"
    # Decided here, on the host: what a GPU holds would be waited for.
    stochastic = tuple(k for k, s in enumerate(std.tolist()) if s > 0.0 or learned)
    return Schedule(method, grid.float(), coef.float(), std.float(), stochastic, learned, single)


def transition_mean(x: Tensor, velocity: Tensor, t: Tensor, t_next: Tensor, noise_coef: Tensor) -> Tensor:
    """Mean of one denoise step, ``(1 - t') x0_hat + c x1_hat``, of ``x`` at time t; all is float32.

    ``x``, ``velocity`` (noise minus action) and the mean are ``[n, H, D]``; the times and ``noise_coef``, the sampler's
    c, are ``[n]``.
    """
    t, t_next, noise_coef = (a[:, None, None] for a in (t, t_next, noise_coef))  # [n, 1, 1], beside [n, H, D]
    x0_hat = x - t * velocity
    x1_hat = x + (1.0 - t) * velocity
    return (1.0 - t_next) * x0_hat + noise_coef * x1_hat


def normal_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Element-wise log-density of a normal with positive std, in nats; shapes broadcast."""
    return -0.5 * ((x - mean) / std).square() - std.log() - 0.5 * LOG_2PI


def normal_entropy(std: Tensor) -> Tensor:
    """Element-wise differential entropy of a normal, in nats."""
    return 0.5 + 0.5 * LOG_2PI + std.log()


@dataclass
class ChainLogProb:
    """Log-density of a chain, in the two parts that it counts in; nats."""

    latent: Tensor  # float32 `[n]`: numbers of earlier denoise steps, which every executed action depends on
    action: Tensor  # float32 `[n, A]`: numbers that belong to one action step, and count where it was executed

    def joint(self, n_executed: Tensor) -> Tensor:
        """Log-density ``[n]`` of what could have an effect: steps after ``n_executed [n]`` never reached the robot."""
        steps = torch.arange(self.action.shape[1], device=self.action.device)
        return self.latent + (self.action * (steps < n_executed[:, None])).sum(-1)


def log_prob_terms(schedule: Schedule, act_steps: int, explored_dims: int) -> int:
    """Number of densities inside a full chunk's joint log-prob; the divisor of the averaged (parity) mode.

    A step that draws gives A * d of them, and the initial draw as many again: (K + 1) A d for flow_noise and flow_sde,
    K A d for flow_cps (its last step draws nothing), 2 A d for flow_sde_single; d is here less the frozen dimensions.
    """
    drawing = 1 if schedule.single else len(schedule.stochastic_steps)
    return (drawing + 1) * act_steps * explored_dims


@lru_cache(maxsize=16)
def ode_schedule(num_steps: int, device: torch.device) -> Schedule:
    """The Euler steps of an evaluation on a device, made once: their copies would be waited for in every decision."""
    with torch.inference_mode(False):  # a tensor of inference mode could not be used in training later
        return make_schedule("ode", num_steps, 0.0).to(device)


@torch.no_grad()
def integrate_ode(policy: FlowPolicy, prefix: Prefix, noise: Tensor, num_steps: int) -> Tensor:
    """Deterministic denoising by K Euler steps, for evaluation: noise ``[n, H, D]`` -> the chunk, model units."""
    schedule, x = ode_schedule(num_steps, noise.device), noise
    for k in range(num_steps):
        t, t_next, c = (a.expand(len(x)) for a in (schedule.t[k], schedule.t[k + 1], schedule.noise_coef[k]))
        velocity, _ = policy.velocity(prefix, x, t)
        x = transition_mean(x, velocity, t, t_next, c)  # with c = t' this is x - (t - t') velocity, an Euler step
    return x
