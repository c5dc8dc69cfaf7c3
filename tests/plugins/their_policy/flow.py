"""A policy of another package in one file: a small convolution and an MLP in the place of a vision-language model.

``model.kind=their_policy.flow:FAMILY`` trains, checkpoints, resumes and evaluates it; the package has to be importable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlft.config.schema import ModelConfig
from rlft.data.normalize import NormStats
from rlft.errors import ConfigError
from rlft.policy.base import FlowPolicy, Prefix, normalize
from rlft.policy.images import stack_cameras
from rlft.policy.weights_io import check_file, load_weights, save_weights
from rlft.rows import PolicyInput
from rlft.seeding import seed_for
from rlft.types import Observation

WEIGHTS = "flow.safetensors"


@dataclass
class Options:
    """Sizes, from ``model.options`` or ``model.small``."""

    image_size: int = 28  # square image side, pixels
    width: int = 64  # of the prefix and of the features, F


@dataclass
class Seen(PolicyInput):
    """Model inputs: images uint8 ``[n, V, 3, side, side]`` and state float32 ``[n, S]``, normalised."""

    images: Tensor
    state: Tensor


@dataclass
class Context(Prefix):
    """What was seen, as one vector a row: ``[n, F]``."""

    context: Tensor


class ConvFlow(FlowPolicy):
    """Velocity ``[n, H, d]`` of an MLP over the context, the noisy chunk and its time. It reads no language."""

    def __init__(self, stats: NormStats, horizon: int, options: Options) -> None:
        d, F, side = stats.act_dim, options.width, options.image_size
        super().__init__(stats, horizon=horizon, action_width=d, feature_dim=F, image_size=side)
        self.options, self.train_prefix = options, False
        eye = nn.Sequential(nn.Conv2d(3, 16, 5, stride=3), nn.SiLU(), nn.Conv2d(16, 16, 3, stride=2), nn.Flatten())
        seen = len(stats.cameras) * eye(torch.zeros(1, 3, side, side, device="cpu")).shape[1] + stats.state_dim
        self.prefix = nn.ModuleDict({"eye": eye, "look": nn.Linear(seen, F)})
        self.body = nn.Sequential(nn.Linear(F + horizon * d + 3, 4 * F), nn.SiLU(), nn.Linear(4 * F, horizon * F))
        self.out = nn.Linear(F, d)

    def transform(self, obs: Observation) -> Seen:
        """Fit the images and normalise the state, where they are."""
        state = torch.as_tensor(obs.state, dtype=torch.float32)
        if state.ndim != 2 or state.shape[1] != self.stats.state_dim:
            raise ValueError(f"observation.state has shape {tuple(state.shape)}; wanted [n, {self.stats.state_dim}]")
        images = stack_cameras(obs.images, self.cameras, self.image_size, rows=len(state))
        return Seen(images, normalize(state, self.stats.state_mean, self.stats.state_std))

    def encode(self, inputs: Any) -> Context:
        """Convolve each camera; without gradients where the prefix is frozen."""
        with torch.set_grad_enabled(self.train_prefix and torch.is_grad_enabled()):
            pixels = inputs.images.flatten(0, 1).float() / 127.5 - 1.0
            seen = self.prefix["eye"](pixels).view(len(inputs), -1)
            context = torch.tanh(self.prefix["look"](torch.cat([seen, inputs.state], dim=-1)))
        return Context(context.to(self.prefix_dtype or context.dtype))

    def velocity(self, prefix: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """One pass of the MLP for each of the n chunks."""
        context = prefix.context.float().repeat_interleave(len(x) // len(prefix), dim=0)
        time = torch.stack([t, (3.0 * t).sin(), (3.0 * t).cos()], dim=-1)
        hidden = self.body(torch.cat([context, x.flatten(1), time], dim=-1))
        features = torch.tanh(hidden).unflatten(-1, (self.horizon, self.feature_dim))
        return self.out(features), features

    def set_trainable(self, *, vlm: bool) -> None:
        """The MLP always trains, the convolution where the prefix is to."""
        self.train_prefix = vlm
        self.prefix.requires_grad_(vlm)


class ConvFamily:
    """A :class:`rlft.policy.base.PolicyFamily`."""

    stats_method = "mean_std"
    Options = Options

    def problems(self, model: ModelConfig, cameras: Sequence[str]) -> list[str]:
        """What this policy cannot do is refused, not ignored."""
        wrong = {
            "dtype": model.dtype != "float32",
            "tokenizer_path": model.tokenizer_path is not None,
            "gradient_checkpointing": model.gradient_checkpointing,
            "compile": model.compile,
        }
        found = [f"model.{key} = {vars(model)[key]}: {model.kind} has no use for it" for key in wrong if wrong[key]]
        return found + ([] if cameras else [f"env.cameras = []: {model.kind} needs at least one"])

    def image_size(self, model: ModelConfig) -> int:
        """Side of the square images, pixels."""
        return self._options(model).image_size

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
    ) -> ConvFlow:
        """Random weights, or those of a directory."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(seed, "policy-weights"))
            policy = ConvFlow(stats, horizon, self._options(model))
        if weights is not None:
            load_weights(policy, weights / WEIGHTS, torch.device("cpu"))
        policy.set_trainable(vlm=model.train_vlm)
        return policy.to(device)

    def save(self, policy: ConvFlow, directory: Path) -> Mapping[str, Any]:
        """One file of weights; the sizes stand in the description."""
        save_weights(policy, directory / WEIGHTS)
        return {"options": asdict(policy.options)}

    def load(
        self, directory: Path, facts: Mapping[str, Any], model: ModelConfig, stats: NormStats, device: torch.device
    ) -> ConvFlow:
        """What :meth:`save` wrote, in the sizes that it had."""
        model = replace(model, options=facts["options"])
        return self.build(model, stats, horizon=facts["horizon"], device=device, weights=directory)

    def check(self, directory: Path, facts: Mapping[str, Any] | None, model: ModelConfig) -> None:
        """Whether there is a file of weights at all; it is small enough to be read when it is wanted."""
        check_file(directory / WEIGHTS)

    def _options(self, model: ModelConfig) -> Options:
        try:
            return Options(**{**model.small, **model.options})
        except TypeError as error:
            raise ConfigError(f"model.small, model.options of {model.kind}: {error}") from error


FAMILY = ConvFamily()
