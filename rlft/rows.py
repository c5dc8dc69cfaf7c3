"""Bundles of tensors that share their first axis, the form in which everything with rows is moved and stored."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

from torch import Tensor


@dataclass
class TensorRows:
    """A bundle of tensors that share their first axis (rows). A field may be None: nothing is kept there."""

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that is there, by name."""
        return {x.name: tensor for x in fields(self) if (tensor := getattr(self, x.name)) is not None}

    def map(self, f) -> Self:  # noqa: ANN001 - any tensor -> tensor function
        """Apply ``f`` to every tensor."""
        return type(self)(**{x.name: None for x in fields(self)} | {k: f(x) for k, x in self.tensors().items()})

    def __getitem__(self, rows: Tensor | slice) -> Self:
        """Select rows."""
        return self.map(lambda x: x[rows])

    def __len__(self) -> int:
        """Number of rows."""
        return int(getattr(self, fields(self)[0].name).shape[0])


@dataclass
class PolicyInput(TensorRows):
    """What a policy's transform makes of an observation, n rows; which tensors these are is the policy's own business.

    A policy declares them in a subclass. Widths beyond the rows may differ from batch to batch, as prompts do.
    """


def padded(tensor: Tensor, widths: Sequence[int]) -> Tensor:
    """Rows ``[n, ...]`` with zeros behind the last entry of every axis, up to ``widths``; or as they are."""
    if list(tensor.shape[1:]) == list(widths):
        return tensor
    out = tensor.new_zeros(len(tensor), *widths)
    out[(slice(None), *(slice(width) for width in tensor.shape[1:]))] = tensor
    return out
