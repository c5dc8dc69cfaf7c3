"""Optimisers from their settings."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from rlft.config.learning import OptimizerConfig


def make_adamw(parameters: Iterable[torch.nn.Parameter], cfg: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that train."""
    first, second = cfg.betas
    return torch.optim.AdamW(parameters, lr=cfg.lr, betas=(first, second), eps=cfg.eps, weight_decay=cfg.weight_decay)
