"""Flow policies whose mathematics is known in closed form, for the tests of samplers and PPO."""

from dataclasses import dataclass

import torch
from torch import nn

from rlft.rows import TensorRows


@dataclass
class NoPrefix(TensorRows):
    """A prefix that says nothing; its only tensor gives the number of rows."""

    mask: torch.Tensor


def repeat_rows(prefix: torch.Tensor, n: int) -> torch.Tensor:
    return prefix.repeat_interleave(n // prefix.shape[0], 0)


class LinearGaussianPolicy(nn.Module):
    """The optimal velocity for actions from Normal(mu, s^2), per element; features are zeros."""

    def __init__(self, mu=0.7, s=0.3, horizon=1, width=1):
        super().__init__()
        self.mu, self.s, self.horizon, self.action_width, self.feature_dim = mu, s, horizon, width, 4

    def velocity(self, prefix, x, t):
        t = t[:, None, None]
        var = t**2 + (1 - t) ** 2 * self.s**2
        slope = (t - (1 - t) * self.s**2) / var
        return -self.mu + slope * (x - (1 - t) * self.mu), x.new_zeros(*x.shape[:2], 4)

    def actor_parameters(self):
        return []


class ConstantTargetPolicy(nn.Module):
    """Pulls every chunk towards a learned point: v = (x - theta) / t, so that the ODE lands on theta exactly."""

    def __init__(self, horizon=1, width=2):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(horizon, width))
        self.horizon, self.action_width, self.feature_dim = horizon, width, 4

    def velocity(self, prefix, x, t):
        return (x - self.theta) / t[:, None, None], x.new_zeros(*x.shape[:2], 4)

    def actor_parameters(self):
        return [self.theta]


class MlpPolicy(nn.Module):
    """A small random network over (context, x, t), with padding dimensions that do matter."""

    def __init__(self, horizon=3, width=4, context=2, seed=0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.horizon, self.action_width, self.feature_dim = horizon, width, 8
        n_in = horizon * width + context + 1
        self.w1 = nn.Parameter(torch.randn(n_in, 16, generator=g) / n_in**0.5)
        self.w2 = nn.Parameter(torch.randn(16, horizon * 8, generator=g) / 4)
        self.w3 = nn.Parameter(torch.randn(8, width, generator=g) / 8**0.5)

    def velocity(self, prefix, x, t):
        context = repeat_rows(prefix.mask, x.shape[0])
        h = torch.tanh(torch.cat([context, x.flatten(1), t[:, None]], -1) @ self.w1)
        features = torch.tanh((h @ self.w2).unflatten(-1, (self.horizon, 8)))
        return features @ self.w3, features

    def actor_parameters(self):
        return list(self.parameters())


class StatePolicy(MlpPolicy):
    """MlpPolicy that reads the observation's state; acts in 2 real dimensions."""

    real_dims = (0, 1)

    def prepare(self, obs):
        return NoPrefix(torch.as_tensor(obs.state).float())

    def encode(self, inputs):
        return inputs

    def actions_to_env(self, chunk):
        return chunk[..., list(self.real_dims)].clamp(-1.0, 1.0)


class CoupledPolicy(nn.Module):
    """Pulls every number of the chunk towards a learned one and, by ``coupling``, towards the mean of all: linear.

    Its features show the noisy chunk and what the flow predicts from it, so that a value head can see the draws.
    """

    def __init__(self, horizon=2, width=2, coupling=1.0):
        super().__init__()
        self.horizon, self.action_width, self.coupling = horizon, width, coupling
        self.feature_dim = 2 * horizon * width
        self.bias = nn.Parameter(torch.linspace(-0.5, 0.5, horizon * width).view(horizon, width))

    def velocity(self, prefix, x, t):
        t = t[:, None, None]
        target = self.bias + self.coupling * x.mean((1, 2), keepdim=True)
        seen = torch.cat([x.flatten(1), target.expand_as(x).flatten(1)], -1)
        return (x - target) / (t + 0.5), seen[:, None].expand(-1, self.horizon, -1)

    def actor_parameters(self):
        return [self.bias]
