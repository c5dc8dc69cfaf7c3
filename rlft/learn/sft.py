"""Supervised warm-up: flow matching on demonstrations."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from rlft.config.learning import SftConfig
from rlft.data.dataset import DemoBatch, DemoSet
from rlft.data.randomize.randomizer import PictureRandomizer
from rlft.learn.optimizers import make_adamw
from rlft.learn.prefix_cache import prefix_cache
from rlft.policy.base import Prefix
from rlft.policy.pi0 import Pi0Policy
from rlft.seeding import generator_for

log = logging.getLogger(__name__)


class SftTrainer:
    """One optimiser step after another; every step's batch and noise are named by (seed, step).

    Args:
        policy: the policy; trained in place.
        demos: the demonstrations.
        cfg: SFT settings.
        seed: the run's seed.
        randomizer: changes the pictures, anew for every row of every step; None: they stay as they are.

    Raises:
        ConfigError: prefixes are to be kept, but do not fit, or are not the same in every step.
    """

    def __init__(
        self,
        policy: Pi0Policy,
        demos: DemoSet,
        cfg: SftConfig,
        seed: int,
        randomizer: PictureRandomizer | None = None,
    ) -> None:
        self.policy, self.demos, self.cfg, self.seed, self.randomizer = policy, demos, cfg, seed, randomizer
        policy.set_trainable(vlm=not cfg.train_expert_only)
        self.prefixes = prefix_cache(policy, demos, cfg, randomized=randomizer is not None)
        self.parameters = policy.actor_parameters()
        self.optimizer = make_adamw(self.parameters, cfg.optimizer)
        self.step_count = 0

    def step(self) -> dict[str, float]:
        """One batch, one update.

        Returns:
            loss, gradient norm and learning rate; with a randomizer also how much it changed.

        Raises:
            FloatingPointError: the loss is not finite.
            ConfigError: pictures are to be randomised, but do not change.
        """
        self.optimizer.param_groups[0]["lr"] = self.cfg.optimizer.lr * self.lr_factor(self.step_count)
        generator = generator_for(self.seed, "sft-batch", self.step_count)
        batch = self.demos.sample(generator, self.cfg.batch_size)
        prefix, actions = self._prefix(batch), self.policy.actions_from_env(batch.actions)
        loss = self.policy.sft_loss(prefix, actions, batch.is_pad.to(self.policy.device), generator)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"SFT loss is {float(loss)} at step {self.step_count}; lower sft.optimizer.lr or check the dataset"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.collect()
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.masters, self.cfg.max_grad_norm)
        self.optimizer.step()
        self.step_count += 1
        scalars = {"loss": float(loss.detach()), "grad_norm": float(norm), "lr": self.optimizer.param_groups[0]["lr"]}
        return scalars if self.randomizer is None else scalars | self.randomizer.scalars()

    def _prefix(self, batch: DemoBatch) -> Prefix:
        if self.prefixes is not None:
            return self.prefixes.rows(batch.index)
        obs = batch.obs
        if self.randomizer is not None:
            obs = self.randomizer(obs, [(self.step_count, row) for row in range(len(batch.index))])
        return self.policy.encode(self.policy.prepare(obs))

    def lr_factor(self, step: int) -> float:
        """Linear warm-up, then cosine decay to the final ratio."""
        warmup = self.cfg.warmup_steps
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, self.cfg.steps - warmup)
        low = self.cfg.final_lr_ratio
        return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    def run(self, on_step: Callable[[int, Mapping[str, float]], None]) -> float:
        """Train to the configured number of steps.

        Args:
            on_step: called after every step with (steps done, scalars).

        Returns:
            mean loss of the last tenth of the steps run.
        """
        losses: list[float] = []
        self.policy.train()
        while self.step_count < self.cfg.steps:
            scalars = self.step()
            losses.append(scalars["loss"])
            on_step(self.step_count, scalars)
        self.policy.eval()
        tail = losses[-max(1, len(losses) // 10) :]
        return sum(tail) / len(tail) if tail else math.nan

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs beside the weights."""
        return {
            "step": self.step_count,
            "optimizer": self.optimizer.state_dict(),
            "cached_prefixes": self.prefixes is not None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore; continues bit for bit, where prefixes are kept or not as before."""
        kept = self.prefixes is not None
        if state.get("cached_prefixes", kept) != kept:
            log.warning(
                "this run encodes prefixes %s, unlike the one it continues, and may differ from it in the last bits; "
                "set sft.cache_prefix=%s for the same numbers",
                "once" if kept else "anew in every step",
                str(not kept).lower(),
            )
        self.step_count = int(state["step"])
        self.optimizer.load_state_dict(state["optimizer"])
