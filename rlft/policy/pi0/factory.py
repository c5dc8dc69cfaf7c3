"""Policies from explicit arguments: which architecture, which sizes, which statistics, which tokenizer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.pi0.configuration_pi0 import PI0Config
from lerobot.policies.pi0.modeling_pi0 import PI0Pytorch
from lerobot.policies.pi05.configuration_pi05 import PI05Config
from lerobot.policies.pi05.modeling_pi05 import PI05Pytorch

from rlft.data.normalize import NormStats
from rlft.errors import ConfigError
from rlft.placement import HOST
from rlft.policy.pi0.family import SmallSize
from rlft.policy.pi0.policy import Pi0Policy
from rlft.policy.pi0.small import SmallPI0, SmallPI0Config, SmallPI05, SmallPI05Config
from rlft.policy.pi0.tokenizer import PALIGEMMA, PromptTokenizer, build_small_tokenizer, load_tokenizer
from rlft.policy.weights_io import load_weights
from rlft.seeding import seed_for

TOKENIZER_OF_SMALL = "rlft-small"
PALIGEMMA_VOCAB = 257152
ARCHITECTURES: dict[str, tuple[Any, Any]] = {
    "small": (SmallPI0Config, SmallPI0),
    "small_pi05": (SmallPI05Config, SmallPI05),
    "pi0": (PI0Config, PI0Pytorch),
    "pi05": (PI05Config, PI05Pytorch),
}
MODES = {  # NormStats.method -> lerobot's name for the same map
    "mean_std": NormalizationMode.MEAN_STD,
    "quantiles": NormalizationMode.QUANTILES,
    "bounds": NormalizationMode.MIN_MAX,
}


def build_policy(
    kind: str,
    stats: NormStats,
    *,
    device: torch.device,
    tokenizer_path: str | None = None,
    tokenizer_source: str | None = None,
    real_dims: Sequence[int] | None = None,
    state_dims: Sequence[int] | None = None,
    train_vlm: bool = False,
    recompute: bool = False,
    seed: int = 0,
    weights: Path | None = None,
    **sizes: Any,
) -> Pi0Policy:
    """Build a policy, with random weights or those of a file; see :meth:`rlft.policy.base.PolicyFamily.build`.

    Args:
        kind: ``small``, ``small_pi05``, ``pi0`` or ``pi05``.
        stats: normalisation statistics; they also say the widths and the cameras.
        device: on the meta device no tokenizer is downloaded.
        tokenizer_path: directory or hub name; None: the built-in one for small kinds, PaliGemma's for real ones.
        tokenizer_source: the name that a checkpoint remembers, where the path is a copy.
        real_dims: positions of the d action dimensions in the model's D; None: the first d.
        state_dims: positions of the S state dimensions in the model's state; None: the first S.
        train_vlm: let gradients reach the prefix.
        recompute: gradient checkpointing.
        seed: of the initial weights.
        weights: safetensors file in lerobot's or ``lerobot/pi0_base``'s layout.
        sizes: see :func:`lerobot_config`.
    """
    config = lerobot_config(kind, stats, device=device, **sizes)
    core = _core(ARCHITECTURES[kind][1], config, device, seed, weights)
    tokenizer = _tokenizer(config, tokenizer_path, tokenizer_source, device)
    where = {"real_dims": real_dims, "state_dims": state_dims}
    policy = Pi0Policy(core, stats, tokenizer, **where, train_vlm=train_vlm, recompute=recompute)
    policy.kind = kind
    return policy


def lerobot_config(
    kind: str,
    stats: NormStats,
    *,
    horizon: int,
    device: torch.device,
    small: SmallSize | Mapping[str, Any] | None = None,
    dtype: str = "float32",
    num_steps: int = 10,
) -> Any:
    """Build lerobot's configuration of a policy.

    Args:
        kind: see :func:`build_policy`.
        stats: likewise.
        horizon: H.
        device: likewise.
        small: sizes of the small kinds.
        dtype: ``float32`` or ``bfloat16`` (SigLIP, norms and buffers stay float32, as in lerobot).
        num_steps: denoise steps of lerobot's own sampler; rlft's take their own.
    """
    if kind not in ARCHITECTURES:
        raise ConfigError(f"model.kind={kind!r}: must be one of {', '.join(ARCHITECTURES)}.")
    config_class = ARCHITECTURES[kind][0]
    extra: dict[str, Any] = {}
    side = config_class.image_resolution[0]
    if config_class in (SmallPI0Config, SmallPI05Config):
        extra["size"] = small if isinstance(small, SmallSize) else SmallSize.from_settings(small or {})
        side = extra["size"].image_size
    frame = PolicyFeature(type=FeatureType.VISUAL, shape=(3, side, side))
    state = PolicyFeature(type=FeatureType.STATE, shape=(stats.state_dim,))
    action = PolicyFeature(type=FeatureType.ACTION, shape=(stats.act_dim,))
    mode = MODES[stats.method]
    config = config_class(
        **extra,
        dtype=dtype,
        chunk_size=horizon,
        n_action_steps=horizon,
        num_inference_steps=num_steps,
        image_resolution=(side, side),
        device=(HOST if device.type == "meta" else device).type,
        input_features={f"observation.images.{name}": frame for name in stats.cameras} | {"observation.state": state},
        output_features={"action": action},
        normalization_mapping={"VISUAL": NormalizationMode.IDENTITY, "STATE": mode, "ACTION": mode},
    )
    limits = {"state": config.max_state_dim, "action": config.max_action_dim}
    for (name, limit), width in zip(limits.items(), (stats.state_dim, stats.act_dim), strict=True):
        if width > limit:
            raise ConfigError(f"The {name} has {width} dimensions; {kind} takes at most {limit}.")
    return config


def core_shapes(kind: str, small: SmallSize | Mapping[str, Any] | None = None) -> dict[str, torch.Tensor]:
    """The weights that a core of this kind and these sizes has, on the meta device; robot and cameras change none."""
    any_robot = NormStats((), (), (), (), env_id="any", control_mode="any")
    config = lerobot_config(kind, any_robot, horizon=1, device=torch.get_default_device(), small=small)
    return dict(_core(ARCHITECTURES[kind][1], config, torch.device("meta"), 0, None).state_dict())


def restore_buffers(model: Any) -> None:
    """Recompute the six buffers that no checkpoint holds, in float32: RoPE frequencies, embedding scale, positions.

    Needed after building on the meta device, and after a cast to bfloat16, which rounds RoPE's frequencies too.
    """
    backbone = model.paligemma_with_expert
    language, expert = backbone.paligemma.model.language_model, backbone.gemma_expert.model
    device = model.action_in_proj.weight.device
    for tower in (language, expert):
        rope = tower.rotary_emb
        frequencies, _ = rope.compute_default_rope_parameters(rope.config)
        rope.inv_freq = frequencies.to(device)
        rope.original_inv_freq = frequencies.to(device, copy=True)
    words = language.embed_tokens
    words.embed_scale = torch.tensor(words.embedding_dim**0.5, device=device)
    vision = backbone.paligemma.model.vision_tower.vision_model.embeddings
    vision.position_ids = torch.arange(vision.num_positions, device=device)[None]


def _core(architecture: Any, config: Any, device: torch.device, seed: int, weights: Path | None) -> Any:
    # With weights to come, first shapes alone, which are then filled: the model never exists twice.
    shapes_only = device.type == "meta" or weights is not None
    with torch.random.fork_rng(devices=[]), torch.device("meta") if shapes_only else contextlib.nullcontext():
        torch.manual_seed(seed_for(seed, "policy-weights"))
        model = architecture(config)
    if weights is None:
        model.to(device)
    else:
        load_weights(model, weights, device)
    restore_buffers(model)
    return model


def _tokenizer(config: Any, path: str | None, source: str | None, device: torch.device) -> PromptTokenizer | None:
    vocab = config.size.vocab if isinstance(config, SmallPI0Config | SmallPI05Config) else None
    if device.type == "meta" and path is None and vocab is None:
        return None
    tokenizer = build_small_tokenizer(vocab) if vocab and path is None else load_tokenizer(path or PALIGEMMA)
    if len(tokenizer) > (limit := vocab or PALIGEMMA_VOCAB):
        raise ConfigError(f"model.tokenizer_path={path!r}: {len(tokenizer)} tokens, but the model knows {limit}.")
    source = source or path or (TOKENIZER_OF_SMALL if vocab else PALIGEMMA)
    return PromptTokenizer(tokenizer, config.tokenizer_max_length, source=source)
