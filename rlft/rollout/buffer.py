"""The rollout buffer: preallocated on its own device, filled decision by decision, read in shuffled minibatches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch

from rlft.policy.base import PolicyInput, Prefix, TensorRows


@dataclass
class Minibatch:
    """n decisions, on the policy's device.

    Attributes:
        prefix: the stored prefix, or None where model inputs are stored.
        inputs: the stored model inputs, or None.
        privileged: float32 ``[n, P]`` or None.
        chain: float32 ``[n, K + 1, H, D]``.
        drawn_step: int64 ``[n]``.
        n_executed: int64 ``[n]``.
        log_prob: float32 ``[n]``, joint log-probability at the rollout, nats.
        value: float32 ``[n]``, the critic at the rollout.
        advantage: float32 ``[n]``, normalised over the rollout.
        target: float32 ``[n]``, value target.
    """

    prefix: Prefix | None
    inputs: PolicyInput | None
    privileged: torch.Tensor | None
    chain: torch.Tensor
    drawn_step: torch.Tensor
    n_executed: torch.Tensor
    log_prob: torch.Tensor
    value: torch.Tensor
    advantage: torch.Tensor
    target: torch.Tensor

    def __len__(self) -> int:
        return int(self.chain.shape[0])

    def map(self, f: Callable[[Any], Any]) -> Minibatch:
        """Apply ``f`` to every part that is there."""
        parts: dict[str, Any] = {x.name: getattr(self, x.name) for x in fields(self)}
        parts.update({name: f(part) for name, part in parts.items() if part is not None})
        return Minibatch(**parts)

    def __getitem__(self, rows: slice) -> Minibatch:
        return self.map(lambda part: part[rows])

    def to(self, device: torch.device) -> Minibatch:
        """Copy to a device."""
        return self.map(lambda part: part.to(device))


class RolloutBuffer:
    """T x E decisions of one rollout.

    Args:
        num_decisions: T.
        num_envs: E.
        device: where the rollout is kept.
        policy_device: where minibatches are delivered.
    """

    def __init__(self, num_decisions: int, num_envs: int, device: torch.device, policy_device: torch.device) -> None:
        self.T, self.E = num_decisions, num_envs
        self.device, self.policy_device = device, policy_device
        self._rows: dict[str, torch.Tensor] = {}
        self._bundles: dict[str, TensorRows] = {}

    def add(
        self,
        t: int,
        *,
        prefix: TensorRows | None = None,
        inputs: TensorRows | None = None,
        **columns: torch.Tensor | None,
    ) -> None:
        """Store decision t of all environments.

        Args:
            t: index of the decision, 0..T-1.
            prefix: the encoded observations, E rows; or else
            inputs: the model inputs, from which the update computes the prefix again.
            columns: named tensors with E rows each: privileged, chain, drawn_step, log_prob, value, rewards,
                n_executed, terminated, truncated, invalid, final_value. Memory is allocated at the first call.
        """
        if not 0 <= t < self.T:
            raise IndexError(f"decision {t} of a rollout of T={self.T}")
        for kind, bundle in (("prefix", prefix), ("inputs", inputs)):
            if bundle is None:
                continue
            if kind not in self._bundles:
                self._bundles[kind] = bundle.map(self._allocate)
            for f in fields(bundle):
                self._write(f"{kind}.{f.name}", getattr(self._bundles[kind], f.name), t, getattr(bundle, f.name))
        for name, column in columns.items():
            if column is None:
                continue
            if name not in self._rows:
                self._rows[name] = self._allocate(column)
            self._write(name, self._rows[name], t, column)

    def _allocate(self, like: torch.Tensor) -> torch.Tensor:
        return torch.zeros((self.T, self.E, *like.shape[1:]), dtype=like.dtype, device=self.device)

    def _write(self, name: str, store: torch.Tensor, t: int, value: torch.Tensor) -> None:
        if value.shape != store.shape[1:]:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)} at decision {t}; it began with {tuple(store.shape[1:])}"
            )
        store[t].copy_(value, non_blocking=True)

    def column(self, name: str) -> torch.Tensor:
        """A stored column, ``[T, E, ...]``."""
        return self._rows[name]

    def set_advantages(self, advantage: torch.Tensor, target: torch.Tensor) -> None:
        """Store the learner's verdict on every decision, ``[T, E]`` each."""
        self._rows["advantage"], self._rows["target"] = advantage, target

    @property
    def valid(self) -> torch.Tensor:
        """Bool ``[T, E]``: the decisions that count."""
        return ~self._rows["invalid"]

    def set_log_prob(self, rows: torch.Tensor, log_prob: torch.Tensor) -> None:
        """Replace stored joint log-probabilities of flat rows."""
        self._rows["log_prob"].flatten(0, 1)[rows.to(self.device)] = log_prob.to(self.device)

    def row_blocks(self, size: int) -> Iterator[torch.Tensor]:
        """All valid flat rows in order, in blocks."""
        yield from self.valid.flatten().nonzero().squeeze(-1).split(size)

    def minibatches(self, size: int, generator: torch.Generator) -> Iterator[Minibatch]:
        """One epoch: every valid decision once, in a new order; the last minibatch may be smaller."""
        rows = self.valid.flatten().nonzero().squeeze(-1)
        order = torch.randperm(len(rows), generator=generator)
        for block in order.split(size):
            yield self.gather(rows[block.to(rows.device)])

    def gather(self, rows: torch.Tensor) -> Minibatch:
        """Collect flat rows (t * E + e) and move them to the policy's device."""
        rows = rows.to(self.device)
        parts: dict[str, Any] = {f.name: None for f in fields(Minibatch)}
        for name in parts.keys() & self._rows.keys():
            parts[name] = self._rows[name].flatten(0, 1)[rows]
        for kind, store in self._bundles.items():
            parts[kind] = store.map(lambda x: x.flatten(0, 1)[rows])
        return Minibatch(**parts).to(self.policy_device)

    def nbytes(self) -> int:
        """Memory held, bytes."""
        tensors = [*self._rows.values()]
        for store in self._bundles.values():
            tensors += [getattr(store, f.name) for f in fields(store)]
        return sum(x.numel() * x.element_size() for x in tensors)
