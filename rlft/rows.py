"""Bundles of tensors that share their first axis, the form in which everything with rows is moved and stored."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch


@dataclass
class TensorRows:
    """A bundle of tensors that share their first axis (rows). A field may be None: nothing is kept there."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor that is there, by name."""
        return {x.name: tensor for x in fields(self) if (tensor := getattr(self, x.name)) is not None}

    def map(self, f) -> Self:  # noqa: ANN001 - any tensor -> tensor function
        """Apply ``f`` to every tensor."""
        return type(self)(**{x.name: None for x in fields(self)} | {k: f(x) for k, x in self.tensors().items()})

    def __getitem__(self, rows: torch.Tensor | slice) -> Self:
        """Select rows."""
        return self.map(lambda x: x[rows])

    def __len__(self) -> int:
        """Number of rows."""
        return int(getattr(self, fields(self)[0].name).shape[0])


@dataclass
class PolicyInput(TensorRows):
    """What the transforms make of an observation: normalised, resized, tokenised. n rows.

    Attributes:
        images: uint8 ``[n, V, 3, h, w]`` at model resolution (the policy itself maps them to [-1, 1]).
        tokens: int64 ``[n, L]`` language token ids.
        token_mask: bool ``[n, L]``, False on padding.
        state: float32 ``[n, D]``, normalised, zero-padded to D.
    """

    images: torch.Tensor
    tokens: torch.Tensor
    token_mask: torch.Tensor
    state: torch.Tensor
