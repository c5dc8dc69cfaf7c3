"""The small networks beside a policy: the std of its exploration noise, and the value of what it sees."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

HIDDEN = 64  # width of the noise head's one hidden layer


class NoiseHead(nn.Module):
    """Std of a denoise step from the expert's suffix features, bounded in ``[std_min, std_max]``.

    ``log var = mid + half * tanh(u)`` where u is a small MLP's output, so u = 0 (the start) gives the geometric mean
    of the bounds, model units. The features are not detached: exploration may shape the expert as in ReinFlow (arXiv
    2505.22094). What is not ``learned`` keeps the geometric mean for good, and trains no parameter.
    """

    def __init__(self, feature_dim: int, action_width: int, std_min: float, std_max: float, *, learned: bool) -> None:
        super().__init__()
        low, high = 2.0 * math.log(std_min), 2.0 * math.log(std_max)
        self.log_var_middle, self.log_var_reach = (low + high) / 2.0, (high - low) / 2.0
        self.learned, self.action_width = learned, action_width
        last = nn.Linear(HIDDEN, action_width)
        self.net = nn.Sequential(nn.Linear(feature_dim, HIDDEN), nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.requires_grad_(learned)

    def forward(self, features: Tensor) -> Tensor:
        """``[n, H, F] -> std [n, H, D]``, float32."""
        if not self.learned:
            shape = (*features.shape[:-1], self.action_width)
            return features.new_full(shape, math.exp(self.log_var_middle / 2.0), dtype=torch.float32)
        log_var = self.log_var_middle + self.log_var_reach * torch.tanh(self.net(features.float()))
        return (0.5 * log_var).exp()


class Critic(nn.Module):
    """State value of a chunk decision.

    No dropout: a value that differs between rollout and update is noise in every advantage. Features pass a layer norm;
    the privileged state, whose entries have units of their own, is standardised by statistics that :meth:`calibrate`
    takes once from the first rollout and that are saved with the weights. F and P of 0 leave one of the two out.
    """

    privileged_mean: Tensor
    privileged_std: Tensor
    calibrated: Tensor

    def __init__(self, feature_dim: int, privileged_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        if feature_dim + privileged_dim == 0:
            raise ValueError("critic.inputs selects nothing: no features and no privileged state; allowed: features")
        self.feature_dim, self.privileged_dim = feature_dim, privileged_dim
        self.feature_norm = nn.LayerNorm(feature_dim) if feature_dim else nn.Identity()
        self.register_buffer("privileged_mean", torch.zeros(privileged_dim))
        self.register_buffer("privileged_std", torch.ones(privileged_dim))
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool))
        widths = [feature_dim + privileged_dim, *hidden_dims]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.GELU()]
        self.net = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    @torch.no_grad()
    def calibrate(self, privileged: Tensor) -> None:
        """Set the privileged statistics from ``[n, P]``. Constant entries keep std 1."""
        std = privileged.std(0)
        self.privileged_mean.copy_(privileged.mean(0))
        self.privileged_std.copy_(torch.where(std < 1e-6, torch.ones_like(std), std))
        self.calibrated.fill_(True)

    def forward(self, features: Tensor | None, privileged: Tensor | None) -> Tensor:
        """Value ``[n]`` in float32 from features ``[n, F]`` and privileged state ``[n, P]`` (each where used)."""
        parts = []
        if self.feature_dim:
            if features is None:
                raise ValueError("the critic was built on suffix features, and got none")
            parts.append(self.feature_norm(features.detach().float()))  # no value gradient reaches the action expert
        if self.privileged_dim:
            if privileged is None:
                raise ValueError("the critic was built on privileged state, and the environment gave none")
            parts.append(((privileged.float() - self.privileged_mean) / self.privileged_std).clamp(-10.0, 10.0))
        return self.net(torch.cat(parts, -1)).squeeze(-1)
