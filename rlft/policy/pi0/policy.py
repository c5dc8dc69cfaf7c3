"""lerobot's π0 and π0.5 behind the FlowPolicy contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lerobot.policies.pi05.modeling_pi05 import PI05Pytorch
from torch import Tensor, nn

from rlft.data.normalize import NormStats
from rlft.errors import ConfigError
from rlft.placement import constant, move
from rlft.policy.base import Prefix
from rlft.policy.pi0 import forward
from rlft.policy.pi0.tokenizer import PromptTokenizer
from rlft.policy.pi0.transforms import ObservationTransform, denormalize, normalize
from rlft.rows import PolicyInput
from rlft.types import Observation


class Pi0Policy(nn.Module):
    """A flow policy around lerobot's core; its state dict is that of lerobot's own policy.

    Nothing in it draws randomness but :meth:`sft_loss`, from the generator that it is given, and nothing in it
    behaves differently in train and eval mode (π0 has no dropout).

    Attributes:
        model: lerobot's ``PI0Pytorch`` or ``PI05Pytorch``, or a small one.
        config: lerobot's configuration of it.
        stats: normalisation statistics.
        cameras: cameras that are read, in order; absent ones are never encoded.
        act_dims: where the robot's d action dimensions sit among the D of the model.
        state_dims: where the S state dimensions sit in the model's state.
        train_vlm: whether gradients reach SigLIP and the language tower.
        prefix_dtype: type of the keys and values that :meth:`encode` gives; None: that of the tower. Rounding them
            here, rather than where they are stored, lets rollout and update read the same numbers.
    """

    model: Any  # lerobot is untyped
    config: Any

    def __init__(
        self,
        model: nn.Module,
        stats: NormStats,
        tokenizer: PromptTokenizer,
        *,
        act_dims: Sequence[int] | None = None,
        state_dims: Sequence[int] | None = None,
        train_vlm: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = self.model.config
        self.stats = stats
        self.tokenizer = tokenizer
        self.cameras = stats.cameras
        self.is_pi05 = isinstance(model, PI05Pytorch)
        self.horizon: int = self.config.chunk_size
        self.action_width: int = self.config.max_action_dim
        self.feature_dim: int = self.model.action_in_proj.out_features
        self.act_dims = _checked_dims("act_dims", act_dims, stats.act_dim, self.action_width)
        self.state_dims = _checked_dims("state_dims", state_dims, stats.state_dim, self.config.max_state_dim)
        self.recompute = recompute
        self.prefix_dtype: torch.dtype | None = None
        self._expert_layers: Callable[..., Tensor] = forward.expert_layers
        self.transform = ObservationTransform(
            cameras=self.cameras,
            image_size=self.config.image_resolution[0],
            state_width=self.config.max_state_dim,
            state_dims=tuple(self.state_dims),
            stats=stats,
            tokenizer=tokenizer,
            state_in_prompt=self.is_pi05,
        )
        self.train_vlm = train_vlm
        self.set_trainable(vlm=train_vlm)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.action_in_proj.weight.device

    def prepare(self, obs: Observation) -> PolicyInput:
        """See :meth:`rlft.policy.base.FlowPolicy.prepare`."""
        return move(self.transform(obs), self.device)

    def encode(self, inputs: PolicyInput) -> Prefix:
        """See :meth:`rlft.policy.base.FlowPolicy.encode`. Without gradients where the VLM is frozen."""
        backbone = self.model.paligemma_with_expert
        recompute = self.recompute and self.train_vlm
        with torch.set_grad_enabled(self.train_vlm and torch.is_grad_enabled()):
            embeds = forward.embed_prefix(backbone, inputs.images, inputs.tokens, recompute=recompute)
            pictures = inputs.token_mask.new_ones(len(embeds), embeds.shape[1] - inputs.tokens.shape[1])
            mask = torch.cat([pictures, inputs.token_mask], dim=1)
            kv = forward.prefix_kv(backbone.paligemma.model.language_model, embeds, mask, recompute=recompute)
        return Prefix(kv=kv.to(self.prefix_dtype or kv.dtype), mask=mask, state=inputs.state)

    def velocity(self, prefix: Prefix, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`rlft.policy.base.FlowPolicy.velocity`."""
        rows, rest = divmod(len(x), len(prefix))
        if rest or rows == 0:
            raise ValueError(f"velocity: {len(x)} chunks for {len(prefix)} prefixes; wanted a whole multiple.")
        state = None if self.is_pi05 else prefix.state.repeat_interleave(rows, dim=0)
        embeds, cond = forward.embed_suffix(self.model, state, x, t)
        tower = self.model.paligemma_with_expert.gemma_expert.model
        suffix = embeds.shape[1]
        context = prefix.derived(
            ("suffix", rows, suffix),
            lambda: forward.suffix_context(tower, prefix.mask, rows=rows, suffix=suffix, lone_first=not self.is_pi05),
        )
        features = forward.expert_features(
            tower, embeds, prefix.kv, context, cond=cond, recompute=self.recompute, layers=self._expert_layers
        )
        features = features[:, -self.horizon :].float()
        return self.model.action_out_proj(features), features

    def sft_loss(self, prefix: Prefix, actions: Tensor, is_pad: Tensor, generator: torch.Generator) -> Tensor:
        """See :meth:`rlft.policy.base.FlowPolicy.sft_loss`.

        Noise covers all D dimensions, as at inference; time is 0.999 Beta(1.5, 1) + 0.001, as in lerobot.
        """
        n, config = len(actions), self.config
        drawn = torch.randn(n, self.horizon, self.action_width, generator=generator)
        noise, t = move((drawn, flow_times(n, config.time_sampling_beta_alpha, generator)), self.device)
        t = t * config.time_sampling_scale + config.time_sampling_offset
        padded = actions.new_zeros(n, self.horizon, self.action_width).index_copy(2, self._dims, actions)
        x = t[:, None, None] * noise + (1.0 - t[:, None, None]) * padded
        v, _ = self.velocity(prefix, x, t)
        error = (v - (noise - padded)).square().index_select(-1, self._dims).mean(dim=-1)
        real = (~is_pad).to(error.dtype)
        return (error * real).sum() / real.sum().clamp(min=1.0)

    def compile_denoise_step(self) -> None:
        """Compile the expert's layers (``torch.compile``); each new batch shape compiles once more."""
        self._expert_layers = torch.compile(forward.expert_layers, dynamic=False)

    def set_trainable(self, *, vlm: bool) -> None:
        """Choose what trains: the expert with its projections, and the prefix too if ``vlm``.

        The language heads, and what the prefix's last layer computes beyond keys and values, never train:
        no output depends on them.
        """
        self.train_vlm = vlm
        dead = forward.dead_parameters(self.model.paligemma_with_expert)
        for name, parameter in self.model.named_parameters():
            frozen = not vlm and name.startswith("paligemma_with_expert.paligemma.")
            parameter.requires_grad_(not frozen and id(parameter) not in dead)

    def actor_parameters(self) -> list[nn.Parameter]:
        """The parameters that train, see :meth:`set_trainable`."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def actions_to_env(self, chunk: Tensor) -> Tensor:
        """See :meth:`rlft.policy.base.FlowPolicy.actions_to_env`."""
        return denormalize(chunk.index_select(-1, self._dims), self.stats.action_mean, self.stats.action_std)

    def actions_from_env(self, actions: Tensor) -> Tensor:
        """Normalise: controller units ``[n, H, d]`` -> model units ``[n, H, d]``, on the policy's device."""
        return normalize(move(actions.float(), self.device), self.stats.action_mean, self.stats.action_std)

    @property
    def _dims(self) -> Tensor:
        """``act_dims`` where the weights are: a list as an index would be copied there in every step."""
        return constant(tuple(self.act_dims), torch.int64, self.device)


def flow_times(n: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Draw n times from Beta(alpha, 1), on the CPU: its distribution function is ``t ** alpha``, inverted here."""
    return torch.rand(n, generator=generator) ** (1.0 / alpha)


def _checked_dims(name: str, given: Sequence[int] | None, count: int, width: int) -> list[int]:
    dims = list(range(count)) if given is None else [int(index) for index in given]
    if len(dims) != count or len(set(dims)) != len(dims) or not all(0 <= index < width for index in dims):
        raise ConfigError(f"{name}={dims}: wanted {count} different indices below {width}.")
    return dims
