"""The rollout buffer: preallocated on its own device, filled decision by decision, read in shuffled minibatches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from rlft.placement import allocate, move, select_rows, synchronize
from rlft.policy.base import Prefix
from rlft.rows import PolicyInput, TensorRows


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

    def tensors(self) -> Iterator[torch.Tensor]:
        """Every tensor in it."""
        for part in (getattr(self, x.name) for x in fields(self)):
            if isinstance(part, TensorRows):
                yield from part.tensors().values()
            elif part is not None:
                yield part


@dataclass(frozen=True)
class Part:
    """What one forward and backward pass takes of a minibatch.

    Attributes:
        batch: its rows.
        weight: its share of the minibatch's rows.
        completes: whether it is the minibatch's last part.
    """

    batch: Minibatch
    weight: float
    completes: bool


class RolloutBuffer:
    """T x E decisions of one rollout. Its memory is allocated once, and holds one rollout after the other.

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
        self._room: dict[tuple[str, str], list[int]] = {}

    def reset(self) -> None:
        """Begin another rollout in the same memory; every row is written anew, and the learner's verdict is gone."""
        self._room.clear()  # what an earlier rollout needed is no part of this one: a resumed run has not seen it
        for name in ("advantage", "target"):
            self._rows.pop(name, None)

    def add(
        self,
        t: int,
        *,
        rows: range | None = None,
        prefix: TensorRows | None = None,
        inputs: TensorRows | None = None,
        **columns: torch.Tensor | None,
    ) -> None:
        """Store decision t of some environments.

        Args:
            t: index of the decision, 0..T-1.
            rows: the n environments, a contiguous range; None: all of them.
            prefix: the encoded observations, n rows; or else
            inputs: the model inputs, from which the update computes the prefix again.
            columns: named tensors with n rows each: privileged, chain, drawn_step, log_prob, value, rewards,
                n_executed, terminated, truncated, invalid, final_value. Memory is allocated at the first call, not
                after a :meth:`reset`.
        """
        if not 0 <= t < self.T:
            raise IndexError(f"decision {t} of a rollout of T={self.T}")
        rows = rows or range(self.E)
        for kind, bundle in (("prefix", prefix), ("inputs", inputs)):
            if bundle is None:
                continue
            if kind not in self._bundles:
                self._bundles[kind] = bundle.map(self._allocate)
            for name, value in bundle.tensors().items():
                store, room = getattr(self._bundles[kind], name), self._room.get((kind, name), value.shape[1:])
                self._room[kind, name] = [max(a, b) for a, b in zip(room, value.shape[1:], strict=True)]
                setattr(self._bundles[kind], name, self._write_growing(store, t, rows, value))
        for name, column in columns.items():
            if column is None:
                continue
            if name not in self._rows:
                self._rows[name] = self._allocate(column)
            self._write(name, self._rows[name], t, rows, column)

    def _allocate(self, like: torch.Tensor) -> torch.Tensor:
        return self._zeros(like.shape[1:], like.dtype)

    def _zeros(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        return allocate((self.T, self.E, *shape), dtype, self.device, peer=self.policy_device)

    def _write(self, name: str, store: torch.Tensor, t: int, rows: range, value: torch.Tensor) -> None:
        wanted = (len(rows), *store.shape[2:])
        if value.shape != wanted:
            shape = tuple(value.shape)
            raise ValueError(f"{name} has shape {shape} at decision {t}; wanted {wanted}, as at its first")
        store[t, rows.start : rows.stop].copy_(value, non_blocking=True)

    def _write_growing(self, store: torch.Tensor, t: int, rows: range, value: torch.Tensor) -> torch.Tensor:
        """Write rows whose prompt may be longer or shorter than those before; zeros, masked, fill what is missing."""
        room = [max(a, b) for a, b in zip(store.shape[2:], value.shape[1:], strict=True)]
        if room != list(store.shape[2:]):
            larger = self._zeros(room, store.dtype)
            self.complete()  # rows that are still on their way would be left behind
            _corner(larger, store.shape).copy_(store)
            store = larger
        block = store[t, rows.start : rows.stop]
        _corner(block, value.shape).copy_(value, non_blocking=True)
        for axis, length in enumerate(value.shape[1:], start=1):  # what a longer prompt left here in another rollout
            block.narrow(axis, length, block.shape[axis] - length).zero_()
        return store

    def complete(self) -> None:
        """Wait until everything that was stored has arrived; nothing may be read before."""
        synchronize(self.device, self.policy_device)

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
        self._rows["log_prob"].flatten(0, 1)[move(rows, self.device)] = move(log_prob, self.device)

    def row_blocks(self, size: int) -> Iterator[torch.Tensor]:
        """All valid flat rows in order, in blocks."""
        rows = self.valid.flatten().nonzero().squeeze(-1)
        yield from rows.split(size) if len(rows) else ()

    def epoch(self, batch_size: int, micro_size: int | None, generator: torch.Generator) -> Iterator[Part]:
        """One epoch: every valid decision once, in a new order, in parts that are gathered when they are asked for.

        Args:
            batch_size: B; the last minibatch may be smaller.
            micro_size: rows per part; None: the whole minibatch.
            generator: a CPU generator that shuffles.
        """
        rows = self.valid.flatten().nonzero().squeeze(-1)
        order = torch.randperm(len(rows), generator=generator)
        for block in order.split(batch_size) if len(rows) else ():
            done = 0
            for part in block.split(micro_size or len(block)):
                done += len(part)
                batch = self.gather(rows[move(part, rows.device)])
                yield Part(batch, weight=len(part) / len(block), completes=done == len(block))

    def gather(self, rows: torch.Tensor) -> Minibatch:
        """Collect flat rows (t * E + e) and move them to the policy's device."""
        rows = move(rows, self.device)
        parts: dict[str, Any] = {f.name: None for f in fields(Minibatch)}
        for name in parts.keys() & self._rows.keys():
            parts[name] = select_rows(self._rows[name].flatten(0, 1), rows, self.policy_device)
        for kind, store in self._bundles.items():
            room = {n: self._room.get((kind, n), list(x.shape[2:])) for n, x in store.tensors().items()}
            written = {n: _corner(x, (self.T, self.E, *room[n])).flatten(0, 1) for n, x in store.tensors().items()}
            parts[kind] = type(store)(**written).map(lambda x: select_rows(x, rows, self.policy_device))
        return Minibatch(**parts)

    def nbytes(self) -> int:
        """Memory held, bytes."""
        tensors = [*self._rows.values()]
        for store in self._bundles.values():
            tensors += store.tensors().values()
        return sum(x.numel() * x.element_size() for x in tensors)


def _corner(tensor: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The part of a tensor that begins at index 0 everywhere and has the given shape; shares its memory."""
    for axis, length in enumerate(shape):
        tensor = tensor.narrow(axis, 0, length)
    return tensor
