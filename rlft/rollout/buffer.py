"""A rollout: preallocated on its own device, filled decision by decision, read in shuffled minibatches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlft.placement import allocate, move, select_rows, synchronize
from rlft.rows import TensorRows


@dataclass
class ChunkRows(TensorRows):
    """What came of n decisions, whatever the algorithm."""

    rewards: Tensor  # float32 `[n, A]`, zero beyond the executed steps
    n_executed: Tensor  # int64 `[n]`
    terminated: Tensor  # bool `[n]`
    truncated: Tensor  # bool `[n]`
    invalid: Tensor  # bool `[n]`, the simulator failed in it
    # float32 `[n]`, value of the observation after the chunk, where an objective bootstraps and the episode or the
    # rollout is cut off there, else 0; None: the objective has no values
    final_value: Tensor | None = None


@dataclass
class MicroBatch:
    """What one forward and backward pass takes of a minibatch: n decisions, on the policy's device."""

    prefix: Any  # the stored prefix; None where model inputs are stored
    inputs: Any  # the stored model inputs; None where prefixes are
    trace: Any  # what the objective left of the decision
    signal: Any  # what the objective made of the finished rollout; None before it did
    n_executed: Tensor  # int64 `[n]`
    weight: float = 1.0  # its share of the minibatch's rows
    is_last: bool = True  # whether it is the minibatch's last part

    def __len__(self) -> int:
        return len(self.n_executed)

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor in it."""
        yield self.n_executed
        for bundle in (self.prefix, self.inputs, self.trace, self.signal):
            yield from bundle.tensors().values() if bundle is not None else ()


@dataclass(eq=False)
class Rollout:
    """T x E decisions, every column ``[T, E, ...]``. Memory is allocated once, and holds one rollout after the other.

    Columns come in bundles, whose classes say which there are. Nothing but those can be stored.
    """

    T: int  # decisions per environment
    E: int  # environments
    device: torch.device  # where the rollout is kept
    policy_device: torch.device  # where its rows are delivered
    prefix: Any = None  # the encoded observations; or else
    inputs: Any = None  # the model inputs, from which the update computes the prefix again
    trace: Any = None  # what the objective leaves of each decision
    chunks: Any = None  # what came of it
    signal: Any = None  # see :meth:`assign`
    dropped: Tensor | None = None  # bool, decisions that the objective leaves out; None: it leaves none

    def __post_init__(self) -> None:
        self._room: dict[tuple[str, str], list[int]] = {}  # that the longest prompt needs, by bundle and column

    def reset(self) -> None:
        """Begin another rollout in the same memory; every row is written anew, and the objective's verdict is gone."""
        self.signal = self.dropped = None
        self._room.clear()  # what an earlier rollout needed is no part of this one: a resumed run has not seen it

    def add(
        self, t: int, envs: range, *, prefix: Any = None, inputs: Any = None, trace: Any = None, chunks: Any = None
    ) -> None:
        """Store some of decision t of n environments, a contiguous range: bundles of n rows, as in the class.

        Raises:
            ValueError: a bundle has another class, columns or shapes than at the first decision.
        """
        if not 0 <= t < self.T:
            raise IndexError(f"decision {t} of a rollout of T={self.T}")
        for name, rows in (("prefix", prefix), ("inputs", inputs), ("trace", trace), ("chunks", chunks)):
            if rows is not None:
                self._write(name, t, envs, rows)

    def _write(self, bundle: str, t: int, envs: range, rows: TensorRows) -> None:
        if getattr(self, bundle) is None:
            setattr(self, bundle, rows.map(lambda x: self._zeros(x.shape[1:], x.dtype)))
        stored, values = getattr(self, bundle), rows.tensors()
        if type(stored) is not type(rows) or stored.tensors().keys() != values.keys():
            raise ValueError(
                f"{bundle} is {type(rows).__name__}({', '.join(values)}) at decision {t}; wanted "
                f"{type(stored).__name__}({', '.join(stored.tensors())}), as at its first"
            )
        for name, value in values.items():
            store = getattr(stored, name)
            if bundle in ("prefix", "inputs"):  # prompts may be longer or shorter than those before
                room = self._room.get((bundle, name), value.shape[1:])
                self._room[bundle, name] = [max(a, b) for a, b in zip(room, value.shape[1:], strict=True)]
                store = self._with_room(store, value.shape[1:])
                setattr(stored, name, store)
            elif value.shape != (wanted := (len(envs), *store.shape[2:])):
                raise ValueError(f"{name} has shape {tuple(value.shape)} at decision {t}; wanted {wanted}")
            block = store[t, envs.start : envs.stop]  # a view: [n, ...]
            _corner(block, value.shape).copy_(value, non_blocking=True)
            for axis, length in enumerate(value.shape[1:], start=1):  # what a longer prompt left here before
                block.narrow(axis, length, block.shape[axis] - length).zero_()

    def _zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return allocate((self.T, self.E, *shape), dtype, self.device, peer=self.policy_device)

    def _with_room(self, store: Tensor, wanted: Sequence[int]) -> Tensor:
        """The column, with zeros (masked) where rows of this shape need more room."""
        room = [max(a, b) for a, b in zip(store.shape[2:], wanted, strict=True)]
        if room == list(store.shape[2:]):
            return store
        larger = self._zeros(room, store.dtype)
        self.complete()  # rows that are still on their way would be left behind
        _corner(larger, store.shape).copy_(store)
        return larger

    def complete(self) -> None:
        """Wait until everything that was stored has arrived; nothing may be read before."""
        synchronize(self.device, self.policy_device)

    def assign(self, signal: TensorRows, dropped: Tensor | None = None) -> None:
        """Store the objective's verdict on every decision (:class:`rlft.objective.base.Signal`).

        Raises:
            ValueError: a column is not ``[T, E, ...]`` of this rollout.
        """
        for name, column in signal.tensors().items():
            if column.shape[:2] != (self.T, self.E):
                raise ValueError(
                    f"{type(signal).__name__}.{name} has shape {tuple(column.shape)}; wanted [{self.T}, {self.E}, ...]"
                )
        self.signal, self.dropped = signal, dropped

    @property
    def valid(self) -> Tensor:
        """Bool ``[T, E]``: the decisions that count."""
        return ~self.chunks.invalid if self.dropped is None else ~(self.chunks.invalid | self.dropped)

    def replace(self, rows: Tensor, **columns: Tensor) -> None:
        """Write columns of the trace anew in flat rows (t * E + e)."""
        for name, values in columns.items():
            getattr(self.trace, name).flatten(0, 1)[move(rows, self.device)] = move(values, self.device)

    def row_blocks(self, size: int) -> Iterator[Tensor]:
        """All valid flat rows in order, in blocks."""
        rows = self._valid_rows()
        yield from rows.split(size) if len(rows) else ()

    def _valid_rows(self) -> Tensor:
        return self.valid.flatten().nonzero().squeeze(-1)

    def epoch(self, batch_size: int, micro_size: int | None, generator: torch.Generator) -> Iterator[MicroBatch]:
        """One epoch: every valid decision once, in a new order, in parts that are gathered when they are asked for.

        The last minibatch may be smaller than B; a part has ``micro_size`` rows, or (None) the whole minibatch's. The
        generator is a CPU's.
        """
        rows = self._valid_rows()
        order = torch.randperm(len(rows), generator=generator)
        for block in order.split(batch_size) if len(rows) else ():
            parts = block.split(micro_size or len(block))
            for i, part in enumerate(parts, start=1):
                batch = self.rows(rows[move(part, rows.device)])
                batch.weight, batch.is_last = len(part) / len(block), i == len(parts)
                yield batch

    def rows(self, rows: Tensor) -> MicroBatch:
        """Collect flat rows (t * E + e) and move them to the policy's device."""
        rows = move(rows, self.device)

        def take(column: Tensor) -> Tensor:
            return select_rows(column.flatten(0, 1), rows, self.policy_device)

        bundles = (self._written("prefix"), self._written("inputs"), self.trace, self.signal)
        prefix, inputs, trace, signal = (None if bundle is None else bundle.map(take) for bundle in bundles)
        return MicroBatch(prefix, inputs, trace, signal, take(self.chunks.n_executed))

    def _written(self, bundle: str) -> Any:
        """A bundle without the room that only earlier rollouts needed."""
        rows = getattr(self, bundle)
        if rows is None:
            return None
        shapes = {name: self._room.get((bundle, name), x.shape[2:]) for name, x in rows.tensors().items()}
        return type(rows)(**{n: _corner(x, (self.T, self.E, *shapes[n])) for n, x in rows.tensors().items()})

    def nbytes(self) -> int:
        """Memory held, bytes."""
        bundles = (self.prefix, self.inputs, self.trace, self.chunks, self.signal)
        return sum(x.nbytes for bundle in bundles if bundle is not None for x in bundle.tensors().values())


def _corner(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The part of a tensor that begins at index 0 everywhere and has the given shape; shares its memory."""
    for axis, length in enumerate(shape):
        tensor = tensor.narrow(axis, 0, length)
    return tensor
