"""The seam of policies: all that anybody outside of this package knows of one, and of where policies come from.

A flow policy sees an observation through its *prefix* (images and language, computed once) and then denoises an action
chunk: ``velocity(prefix, x_t, t)``. Samplers and log-probabilities are pure functions over that velocity
(:mod:`rlft.policy.denoise`), so they are the same in rollout and update.

A policy of one's own is one file: a :class:`FlowPolicy`, and the object that makes and keeps such policies, a
:class:`PolicyFamily`. ``model.kind=package.module:FAMILY`` finds it. ``tests/plugins/their_policy/flow.py`` is one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from rlft.errors import ConfigError
from rlft.placement import constant, move
from rlft.rows import PolicyInput, TensorRows
from rlft.types import Observation

if TYPE_CHECKING:
    from rlft.config.schema import ModelConfig
    from rlft.data.normalize import NormStats

TIME_ALPHA, TIME_SCALE, TIME_OFFSET = 1.5, 0.999, 0.001  # SFT's flow times, 0.999 Beta(1.5, 1) + 0.001, as in lerobot


@dataclass
class Prefix(TensorRows):
    """What a policy encoded of n observations: every denoise step reads it, and it is stored like any rows.

    A policy declares its tensors in a subclass. Whoever keeps rows of several batches fills the narrower ones up with
    zeros (:func:`rlft.rows.padded`), which have to mean "nothing here": a mask that is False.
    """

    def __post_init__(self) -> None:
        self._cached: dict[Hashable, Any] = {}  # no field, so it is neither stored nor moved

    @property
    def tokens(self) -> int:
        """N, how many positions a row has: the measure of how many rows are worth encoding at once."""
        return 1

    def cached(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What follows from these rows alone, made once: every denoise step of a chain needs it again.

        It lives as long as this very object. Indexing, ``map``, moving and gathering make another prefix, which begins
        anew, so nothing here can be of other rows; write no tensor of a prefix in place once something is cached.
        """
        if key not in self._cached:
            self._cached[key] = make()
        return self._cached[key]


class FlowPolicy(nn.Module, ABC):
    """A policy whose action chunk is the end of a denoising flow.

    Nothing in it draws randomness but :meth:`sft_loss`, from the generator that it is given, and nothing in it may
    behave differently in train and eval mode.

    Args:
        stats: normalisation statistics; they also say the widths d and S, and the cameras.
        horizon: H, predicted steps.
        action_width: D, padded width of an action in the model.
        feature_dim: F, width of the suffix features, which noise and value heads read.
        image_size: side of the square images that the model sees, pixels; 0: it sees none.
        real_dims: where the robot's d action dimensions sit among the D; None: the first d.
    """

    kind: str = ""  # `model.kind`; a checkpoint notes it, and is loaded by what stands behind it
    dtype: str = "float32"  # `model.dtype`
    # type of the floats in what `encode` gives; None: the network's own. Rounding there, rather than where prefixes are
    # stored, lets rollout and update read the same numbers
    prefix_dtype: torch.dtype | None = None
    # tokens of the longest prompt so far, padding included. For estimates of memory: no number of a run depends on it
    prompt_length: int = 0

    def __init__(
        self,
        stats: NormStats,
        *,
        horizon: int,
        action_width: int,
        feature_dim: int,
        image_size: int,
        real_dims: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.stats, self.cameras = stats, stats.cameras
        self.horizon, self.action_width, self.feature_dim = horizon, action_width, feature_dim
        self.image_size = image_size
        self.real_dims = checked_dims("real_dims", real_dims, stats.act_dim, action_width)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @abstractmethod
    def transform(self, obs: Observation) -> PolicyInput:
        """Turn an observation into model inputs, on the host or where a GPU simulator's images are.

        Raises:
            ValueError: names the part of the observation that is wrong.
        """

    def prepare(self, obs: Observation) -> PolicyInput:
        """Turn an observation into model inputs on the policy's device: a host half (the transform), then one move."""
        return move(self.transform(obs), self.device)

    def blank_inputs(self, rows: int, prompt_length: int = 0) -> PolicyInput:
        """Inputs of nothing, on the policy's device, which may be the meta device: what planning measures."""
        images = {name: torch.zeros(rows, *[self.image_size] * 2, 3, dtype=torch.uint8) for name in self.cameras}
        return self.prepare(Observation(images, torch.zeros(rows, self.stats.state_dim), ["-"] * rows))

    def expected_prompt_length(self, instruction: str | None) -> int:
        """Tokens of a prompt: as seen, or an estimate from the instruction (None: the task's own); 0: no language."""
        return self.prompt_length

    @abstractmethod
    def encode(self, inputs: PolicyInput) -> Prefix:
        """Compute the prefix; differentiable where it trains."""

    @abstractmethod
    def velocity(self, prefix: Prefix, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """One denoise step of the network.

        Args:
            prefix: n rows, or m with ``n = m * r``: row i of x belongs to prefix row ``i // r``.
            x: float32 ``[n, H, D]``, the noisy chunk.
            t: float32 ``[n]``, flow time in (0, 1].

        Returns:
            velocity float32 ``[n, H, D]`` (noise minus action) and suffix features float32 ``[n, H, F]``.
        """

    def sft_loss(self, prefix: Prefix, actions: Tensor, is_pad: Tensor, generator: torch.Generator) -> Tensor:
        """Flow-matching loss over real dimensions and unpadded steps, scalar. Noise covers all D, as at inference.

        Args:
            prefix: n rows, encoded with gradients where it trains.
            actions: float32 ``[n, H, d]``, normalised.
            is_pad: bool ``[n, H]``, True beyond the episode's end.
            generator: of noise and times, on the CPU.
        """
        shape = (len(actions), self.horizon, self.action_width)
        noise, t = move((torch.randn(shape, generator=generator), flow_times(shape[0], generator)), self.device)
        padded = actions.new_zeros(shape).index_copy(2, self._real, actions)
        x = t[:, None, None] * noise + (1.0 - t[:, None, None]) * padded
        v, _ = self.velocity(prefix, x, t)
        error = (v - (noise - padded)).square().index_select(-1, self._real).mean(dim=-1)  # [n, H]
        real = (~is_pad).to(error.dtype)
        return (error * real).sum() / real.sum().clamp(min=1.0)

    def compile_denoise_step(self) -> None:
        """Compile the denoise step (``torch.compile``), and give it few different shapes; or raise a ConfigError."""
        raise ConfigError(f"model.compile = true: {type(self).__name__} cannot be compiled; set model.compile=false")

    @abstractmethod
    def set_trainable(self, *, vlm: bool) -> None:
        """Let train what :meth:`velocity` uses, and :meth:`encode` too if ``vlm``; never what no action depends on."""

    def actor_parameters(self) -> list[nn.Parameter]:
        """The parameters that train, see :meth:`set_trainable`."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def actions_to_env(self, chunk: Tensor) -> Tensor:
        """Unnormalise: ``[n, H, D]`` model units -> ``[n, H, d]`` controller units."""
        return denormalize(chunk.index_select(-1, self._real), self.stats.action_mean, self.stats.action_std)

    def actions_from_env(self, actions: Tensor) -> Tensor:
        """Normalise: controller units ``[n, H, d]`` -> model units ``[n, H, d]``, on the policy's device."""
        return normalize(move(actions.float(), self.device), self.stats.action_mean, self.stats.action_std)

    @property
    def _real(self) -> Tensor:
        # real_dims where the weights are: a list as an index would be copied there in every step.
        return constant(self.real_dims, torch.int64, self.device)


class PolicyFamily(Protocol):
    """Makes and keeps the policies of one ``model.kind``. A light module, for it is imported with the settings."""

    stats_method: str  # what the weights expect statistics to be, `mean_std` or `quantiles`
    Options: type | None  # a dataclass of the family's own settings (`model.options`), or None

    def problems(self, model: ModelConfig, cameras: Sequence[str]) -> list[str]:
        """What is wrong with the ``model`` section of the settings; each names the setting, the value and a remedy."""

    def image_size(self, model: ModelConfig) -> int:
        """Side of the square images that the model sees, pixels; cameras without a size are rendered so."""

    def build(
        self,
        model: ModelConfig,
        stats: NormStats,
        *,
        horizon: int,
        device: torch.device,
        num_steps: int = 10,
        seed: int = 0,
        weights: Path | None = None,
    ) -> FlowPolicy:
        """A new policy.

        Args:
            model: its settings.
            stats: see :class:`FlowPolicy`.
            horizon: H.
            device: where the weights go; the meta device, where planning counts, takes shapes alone.
            num_steps: denoise steps of an evaluation, where the files can say so to somebody else.
            seed: of the random weights; nothing else may be drawn from.
            weights: a directory of pretrained weights to take instead, completely or not at all.

        Raises:
            ConfigError: settings that it cannot follow.
            WeightsError: the weights are damaged, or do not fit; says which.
        """

    def save(self, policy: Any, directory: Path) -> Mapping[str, Any]:
        """Write the weights into an empty directory; gives what :meth:`load` needs to know beside them, plain data."""

    def load(
        self, directory: Path, facts: Mapping[str, Any], model: ModelConfig, stats: NormStats, device: torch.device
    ) -> FlowPolicy:
        """The policy that :meth:`save` wrote, every number of it; errors as in :meth:`build`.

        Args:
            directory: what :meth:`save` wrote into.
            facts: what it gave, and ``kind``, ``dtype``, ``horizon``, ``stats``; what they say of sizes wins.
            model: settings of precision and training.
            stats: the checkpoint's, or others that are to take their place.
            device: see :meth:`build`; on the meta device no weight need be read.
        """

    def check(self, directory: Path, facts: Mapping[str, Any] | None, model: ModelConfig) -> None:
        """Raise the WeightsError that :meth:`load` (without facts: :meth:`build`) would, without reading a weight."""


def flow_times(n: int, generator: torch.Generator) -> Tensor:
    """Draw n times, on the CPU: Beta(alpha, 1) has the distribution function ``t ** alpha``, inverted here."""
    return torch.rand(n, generator=generator) ** (1.0 / TIME_ALPHA) * TIME_SCALE + TIME_OFFSET


def normalize(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """``(x - mean) / std`` over the last axis."""
    return (x - constant(tuple(mean), x.dtype, x.device)) / constant(tuple(std), x.dtype, x.device)


def denormalize(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The inverse of :func:`normalize`."""
    return x * constant(tuple(std), x.dtype, x.device) + constant(tuple(mean), x.dtype, x.device)


def checked_dims(name: str, given: Sequence[int] | None, count: int, width: int) -> tuple[int, ...]:
    """Positions of ``count`` dimensions among ``width``; None: the first ones."""
    dims = tuple(range(count)) if given is None else tuple(int(index) for index in given)
    if len(dims) != count or len(set(dims)) != len(dims) or not all(0 <= index < width for index in dims):
        raise ConfigError(f"{name}={list(dims)}: wanted {count} different indices below {width}.")
    return dims
