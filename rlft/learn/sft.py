"""Supervised fine-tuning: flow matching on demonstrations."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlft.config.learning import SftConfig
from rlft.data.dataset import DemoSet
from rlft.errors import DivergedError
from rlft.learn.optimizers import MasterAdamW
from rlft.learn.prefix_cache import prefix_cache
from rlft.placement import move, prefetched, to_host
from rlft.policy.base import FlowPolicy, Prefix
from rlft.rows import PolicyInput
from rlft.seeding import generator_for
from rlft.types import Observation

if TYPE_CHECKING:
    from rlft.data.randomize.randomizer import ImageRandomizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Batch:
    """What one step trains on, gathered on the host and brought to the policy's device together."""

    index: Tensor  # int64 `[B]`, the frames at which the rows start, on the host
    actions: Tensor  # float32 `[B, H, d]`, controller units
    is_pad: Tensor  # bool `[B, H]`
    # model inputs; where images are to be changed, observations of which only those are on the device; or None, where
    # prefixes are kept
    seen: PolicyInput | Observation | None
    generator: torch.Generator  # drew the rows, and draws noise and times

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor on the policy's device."""
        yield from (self.actions, self.is_pad)
        if isinstance(self.seen, PolicyInput):
            yield from self.seen.tensors().values()
        elif self.seen is not None:
            yield from self.seen.images.values()


class SftTrainer:
    """One optimiser step after another; every step's batch and noise are named by (seed, step).

    The policy is trained in place. A randomizer changes the images, anew for every row of every step; None: they stay.

    Raises:
        ConfigError: prefixes are to be kept, but do not fit, or are not the same in every step.
    """

    def __init__(
        self, policy: FlowPolicy, demos: DemoSet, cfg: SftConfig, seed: int, randomizer: ImageRandomizer | None = None
    ) -> None:
        self.policy, self.demos, self.cfg, self.seed, self.randomizer = policy, demos, cfg, seed, randomizer
        policy.set_trainable(vlm=not cfg.train_expert_only)
        self.prefixes = prefix_cache(policy, demos, cfg, randomized=randomizer is not None)
        self.parameters = policy.actor_parameters()
        self.optimizer = MasterAdamW(self.parameters, cfg.optimizer)
        self.step_count = 0
        self.skipped = self.skipped_in_a_row = 0
        self._batches = self._from(0)

    def step(self) -> dict[str, float]:
        """One batch, one update; none where loss or gradient are not finite.

        Returns:
            loss, gradient norm, learning rate and skipped steps so far; with a randomizer also how much it changed.

        Raises:
            DivergedError: too many steps in a row were not finite.
            ConfigError: images are to be randomised, but do not change.
        """
        self.optimizer.param_groups[0]["lr"] = self.cfg.optimizer.lr * self.lr_factor(self.step_count)
        batch = next(self._batches)
        self.optimizer.zero_grad(set_to_none=True)  # before the forward pass: its activations take their place
        prefix, actions = self._prefix(batch), self.policy.actions_from_env(batch.actions)
        loss = self.policy.sft_loss(prefix, actions, batch.is_pad, batch.generator)
        loss.backward()
        self.optimizer.collect()
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.masters, self.cfg.max_grad_norm)
        numbers = dict(zip(("loss", "grad_norm"), to_host(torch.stack([loss.detach(), norm])).tolist(), strict=True))
        if all(map(math.isfinite, numbers.values())):
            self.skipped_in_a_row = 0
            self.optimizer.step()
        else:
            self._skip(numbers)
        self.step_count += 1
        scalars = {**numbers, "lr": self.optimizer.param_groups[0]["lr"], "skipped": float(self.skipped)}
        return scalars if self.randomizer is None else scalars | self.randomizer.scalars()

    def _skip(self, numbers: Mapping[str, float]) -> None:
        self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
        found = f"SFT loss {numbers['loss']}, gradient norm {numbers['grad_norm']} at step {self.step_count}"
        if self.skipped_in_a_row >= self.cfg.max_skipped_updates:
            raise DivergedError(
                f"{found}; {self.skipped_in_a_row} steps in a row were not finite (sft.max_skipped_updates); lower "
                "sft.optimizer.lr or check the dataset"
            )
        log.warning("step skipped: %s", found)

    def _from(self, step: int) -> Iterator[_Batch]:
        """The batches of a step and all later ones; on a GPU each is copied while the one before it is used."""
        gathered = (self._gather(number) for number in itertools.count(step))
        return prefetched(gathered, self.policy.device, tensors=_Batch.tensors)

    def _gather(self, step: int) -> _Batch:
        generator = generator_for(self.seed, "sft-batch", step)
        rows = self.demos.sample(generator, self.cfg.batch_size)
        seen: PolicyInput | Observation | None = None
        if self.randomizer is not None:
            seen = replace(rows.obs, images=move(rows.obs.images, self.policy.device))
        elif self.prefixes is None:
            seen = self.policy.prepare(rows.obs)
        actions, is_pad = move((rows.actions, rows.is_pad), self.policy.device)
        return _Batch(rows.index, actions, is_pad, seen, generator)

    def _prefix(self, batch: _Batch) -> Prefix:
        seen = batch.seen
        if isinstance(seen, Observation) and self.randomizer is not None:
            names = [(self.step_count, row) for row in range(len(batch.index))]
            seen = self.policy.prepare(self.randomizer(seen, names))
        if isinstance(seen, PolicyInput):
            return self.policy.encode(seen)
        assert self.prefixes is not None
        return self.prefixes.rows(batch.index)

    def lr_factor(self, step: int) -> float:
        """Linear warm-up, then cosine decay to the final ratio."""
        warmup, low = self.cfg.warmup_steps, self.cfg.final_lr_ratio
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, self.cfg.steps - warmup)
        return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    def run(self, on_step: Callable[[int, Mapping[str, float]], None]) -> float:
        """Train to the end, with (steps done, scalars) for ``on_step``; gives the last tenth's mean applied loss."""
        losses: list[float] = []
        self.policy.train()
        while self.step_count < self.cfg.steps:
            scalars = self.step()
            if self.skipped_in_a_row == 0:
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
            "prefix_block": None if self.prefixes is None else self.prefixes.block,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore; continues bit for bit, where prefixes are kept or not as before."""
        kept, block = self.prefixes is not None, state["prefix_block"]
        if self.prefixes is not None and block is not None:
            self.prefixes.set_block(int(block))  # as many frames as before, whatever this device would choose
        elif kept != (block is not None):
            log.warning(
                "this run encodes prefixes %s, unlike the one it continues, and may differ from it in the last bits; "
                "set sft.cache_prefix=%s for the same numbers",
                "once" if kept else "anew in every step",
                str(not kept).lower(),
            )
        self.step_count, self.skipped = int(state["step"]), int(state["skipped"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._batches = self._from(self.step_count)
