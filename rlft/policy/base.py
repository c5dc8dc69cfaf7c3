"""The FlowPolicy contract: what the sampler, the PPO update and the evaluation know of a policy.

A flow policy sees an observation through its *prefix* (pictures and language, computed once) and
then denoises an action chunk: ``velocity(prefix, x_t, t)``. Samplers and log-probabilities are pure
functions over that velocity (:mod:`rlft.policy.denoise`), so they are the same in rollout and update.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from rlft.rows import PolicyInput, TensorRows

if TYPE_CHECKING:
    from rlft.types import Observation


@dataclass
class Prefix(TensorRows):
    """The encoded observation. Rows first, so that it can be stored and indexed like any rollout data.

    Attributes:
        kv: ``[n, L, 2, kv_heads, N, head_dim]`` keys (after RoPE) and values of every layer.
        mask: bool ``[n, N]``, False on padded positions.
        state: float32 ``[n, D]``, enters with the action expert (π0) or is unused (π0.5).
    """

    kv: torch.Tensor
    mask: torch.Tensor
    state: torch.Tensor

    def __post_init__(self) -> None:
        """Nothing is derived yet."""
        self._derived: dict[Hashable, Any] = {}

    def derived(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Something that follows from these rows alone, made once: every denoise step of a chain needs it again."""
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]


class FlowPolicy(Protocol):
    """A policy whose action chunk is the end of a denoising flow.

    Attributes:
        horizon: H, predicted steps.
        action_width: D, padded width of an action in the model.
        feature_dim: width F of the suffix features.
    """

    horizon: int
    action_width: int
    feature_dim: int

    def prepare(self, obs: Observation) -> PolicyInput:
        """Turn an observation into model inputs on the policy's device: a host half (the transforms), then one move.

        Language and what the robot reports are worked on where the simulator left them, pictures too, and all of it
        goes to the policy together. The host waits for a GPU only where a state that is there has to become text.
        """
        ...

    def encode(self, inputs: PolicyInput) -> Prefix:
        """Compute the prefix; differentiable where the VLM trains."""
        ...

    def velocity(self, prefix: Prefix, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One denoise step of the network.

        Args:
            prefix: n rows, or m with ``n = m * r``: row i of x belongs to prefix row ``i // r``.
            x: float32 ``[n, H, D]``, the noisy chunk.
            t: float32 ``[n]``, flow time in (0, 1].

        Returns:
            velocity float32 ``[n, H, D]`` (noise minus action) and suffix features float32 ``[n, H, F]``.
        """
        ...

    def sft_loss(
        self, prefix: Prefix, actions: torch.Tensor, is_pad: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Flow-matching loss over real dimensions and unpadded steps, scalar.

        Args:
            prefix: n rows, encoded with gradients where the VLM trains.
            actions: float32 ``[n, H, d]``, normalised.
            is_pad: bool ``[n, H]``, True beyond the episode's end.
            generator: draws noise and times.
        """
        ...

    def actor_parameters(self) -> Sequence[torch.nn.Parameter]:
        """The parameters that PPO trains."""
        ...

    def actions_to_env(self, chunk: torch.Tensor) -> torch.Tensor:
        """Unnormalise: ``[n, H, D]`` model units -> ``[n, H, d]`` controller units."""
        ...
