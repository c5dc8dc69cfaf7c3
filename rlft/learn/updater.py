"""Epochs of minibatches over a finished rollout: gradients, clipping, steps. What is minimised, an objective says."""

import logging
import math
from collections.abc import Iterator, Mapping
from itertools import chain

import torch
from torch import Tensor

from rlft.config.learning import GuardConfig, TrainConfig
from rlft.errors import DivergedError
from rlft.learn.optimizers import MasterAdamW
from rlft.objective.base import Objective
from rlft.placement import prefetched
from rlft.rollout.buffer import MicroBatch, Rollout

log = logging.getLogger(__name__)


class Updater:
    """Applies an objective to a finished rollout."""

    def __init__(self, objective: Objective, cfg: TrainConfig, guard: GuardConfig | None = None) -> None:
        self.objective, self.cfg, self.guard = objective, cfg, guard or GuardConfig()
        self.optimizers = {name: MasterAdamW(*group) for name, group in objective.parameter_groups().items()}
        self._norms = [f"{name}_grad_norm" for name in self.optimizers]
        self.skipped_in_a_row = self.idle_in_a_row = 0

    def update(self, rollout: Rollout, iteration: int, generator: torch.Generator) -> dict[str, float]:
        """Run the epochs, shuffled anew by the generator, or as many minibatches of them as the objective wants.

        Returns:
            means of the objective's scalars over the applied minibatches, and what happened (see docs/metrics.md). NaN
            where no minibatch was applied.

        Raises:
            DivergedError: the objective says so; too many non-finite updates, or iterations without any update, in
                a row.
        """
        self._set_learning_rates(iteration)
        notes = self.objective.begin_update(rollout)
        applied: list[dict[str, float]] = []
        skipped, samples = 0, 0.0
        epochs = (self.gradients(rollout, iteration, generator) for _ in range(self.cfg.update_epochs))
        for scalars in chain.from_iterable(epochs):
            samples += scalars.pop("rows")
            if self.objective.examine(iteration, scalars, notes):
                break
            if self._apply(scalars, self.objective.trains(iteration)):
                applied.append(scalars)
            else:
                skipped += 1
        self._clear_gradients()
        self._count_idle(bool(applied))
        return {
            **self._summary(applied),
            **notes,
            "updates": float(len(applied)),
            "updates_skipped": float(skipped),
            "samples": samples,
            **{f"{name}_lr": optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()},
        }

    def gradients(self, rollout: Rollout, iteration: int, generator: torch.Generator) -> Iterator[dict[str, float]]:
        """One epoch, minibatch by minibatch: the gradients of its mean loss are in place, its scalars are given."""
        epoch = rollout.epoch(self.cfg.batch_size, self.cfg.micro_batch_size, generator)
        names = ("total", *self.objective.scalars)
        found: list[Tensor] = []  # on the device: no part waits for its numbers
        rows = 0
        for batch in prefetched(epoch, rollout.policy_device, tensors=MicroBatch.tensors):
            if not found:
                self._clear_gradients()
            scalars = self._accumulate(batch, iteration)
            found.append(torch.stack([batch.weight * scalars, scalars]))
            rows += len(batch)
            if batch.is_last:
                every = torch.stack(found)  # [parts, 2, scalars]
                means, largest = torch.stack([every[:, 0].sum(0), every[:, 1].amax(0)]).tolist()  # the only read
                merged = zip(names, means, largest, strict=True)
                yield {"rows": float(rows)} | {n: high if n.startswith("max_") else mean for n, mean, high in merged}
                found, rows = [], 0

    def _accumulate(self, batch: MicroBatch, iteration: int) -> Tensor:
        """Add a part's share of the minibatch's gradients; exact, because it is weighted by rows."""
        with torch.set_grad_enabled(True):
            total, scalars = self.objective.loss(batch, iteration)
            (total * batch.weight).backward()
        for optimizer in self.optimizers.values():
            optimizer.collect()
        return torch.stack([total.detach(), *(scalars[name].detach() for name in self.objective.scalars)])

    def _clear_gradients(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def _apply(self, scalars: dict[str, float], training: set[str]) -> bool:
        """Clip and step, unless something is not finite: then nothing changes, and it is counted."""
        limit = self.cfg.max_grad_norm if self.cfg.max_grad_norm is not None else math.inf
        for name, optimizer in self.optimizers.items():
            norm = torch.nn.utils.clip_grad_norm_(optimizer.masters, limit) if name in training else 0.0
            scalars[f"{name}_grad_norm"] = float(norm)
        if all(math.isfinite(scalars[name]) for name in ("total", *self._norms)):
            self.skipped_in_a_row = 0
            for name in training:
                self.optimizers[name].step()
            return True
        self.skipped_in_a_row += 1
        log.warning("update skipped: %s", {k: v for k, v in scalars.items() if not math.isfinite(v)})
        if self.skipped_in_a_row >= self.cfg.max_skipped_updates:
            raise DivergedError(
                f"{self.skipped_in_a_row} updates in a row were not finite (train.max_skipped_updates="
                f"{self.cfg.max_skipped_updates}); lower train.actor_optimizer.lr or resume an earlier checkpoint"
            )
        return False

    def _count_idle(self, applied: bool) -> None:
        self.idle_in_a_row = 0 if applied else self.idle_in_a_row + 1
        if self.idle_in_a_row >= self.guard.max_idle_iterations:
            raise DivergedError(
                f"{self.idle_in_a_row} iterations in a row applied no update (guard.max_idle_iterations): every "
                "decision was invalid or left out by the objective, every loss not finite, or the KL passed "
                "train.target_kl at once; the log says which"
            )

    def _summary(self, applied: list[dict[str, float]]) -> dict[str, float]:
        """Means over the applied minibatches, the largest of maxima; NaN where there are none."""
        found = {name: [one[name] for one in applied] for name in ("total", *self.objective.scalars, *self._norms)}
        return {
            name: math.nan if not values else max(values) if name.startswith("max_") else sum(values) / len(values)
            for name, values in found.items()
        }

    def _set_learning_rates(self, iteration: int) -> None:
        progress = iteration / max(1, self.cfg.n_train_itr)
        factor = {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress))}
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = optimizer.defaults["lr"] * factor[self.cfg.lr_schedule]

    def state_dict(self) -> dict[str, object]:
        """Every optimiser's state."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: Mapping[str, dict]) -> None:
        """Restore every optimiser."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
