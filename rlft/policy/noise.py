"""The learned exploration noise of flow_noise: a bounded std per action step and dimension."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class NoiseHead(nn.Module):
    """Std of a denoise step from the expert's suffix features, bounded in ``[std_min, std_max]``.

    ``log var = mid + half * tanh(u)`` where u is a small MLP's output, so u = 0 (the start) gives the geometric mean
    of the bounds. The features are not detached: exploration may shape the expert as in ReinFlow (arXiv 2505.22094).

    Args:
        feature_dim: F.
        action_width: D.
        std_min: smallest std, model units.
        std_max: the largest.
        hidden_dim: width of the hidden layer.
        learned: False keeps the geometric mean for good (no parameters are trained).
    """

    def __init__(
        self,
        feature_dim: int,
        action_width: int,
        std_min: float,
        std_max: float,
        hidden_dim: int = 64,
        *,
        learned: bool,
    ) -> None:
        super().__init__()
        low, high = 2.0 * math.log(std_min), 2.0 * math.log(std_max)
        self.log_var_middle, self.log_var_reach = (low + high) / 2.0, (high - low) / 2.0
        self.learned, self.action_width = learned, action_width
        last = nn.Linear(hidden_dim, action_width)
        self.net = nn.Sequential(nn.Linear(feature_dim, hidden_dim), nn.SiLU(), last)
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
