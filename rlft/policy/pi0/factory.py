"""π0 and π0.5 from their settings, with random weights or those of a file, and written in lerobot's layout.

``pretrained_model/``, beside what :mod:`rlft.policy.pretrained` adds::

    config.json, model.safetensors                       lerobot's configuration and weights
    policy_preprocessor.json, policy_postprocessor.json  lerobot's pipelines, with the normalisation statistics
    tokenizer/                                           the tokenizer itself
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.pi0.configuration_pi0 import PI0Config
from lerobot.policies.pi0.modeling_pi0 import PI0Pytorch
from lerobot.policies.pi0.processor_pi0 import Pi0NewLineProcessor
from lerobot.policies.pi05.configuration_pi05 import PI05Config
from lerobot.policies.pi05.modeling_pi05 import PI05Pytorch
from lerobot.policies.pi05.processor_pi05 import Pi05PrepareStateTokenizerProcessorStep
from lerobot.processor import (
    AbsoluteActionsProcessorStep,
    ProcessorStep,
    RelativeActionsProcessorStep,
    TokenizerProcessorStep,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)

from rlft.config.schema import ModelConfig
from rlft.data.normalize import NormStats
from rlft.errors import ConfigError
from rlft.placement import HOST
from rlft.policy.pi0.family import IMAGE_SIZE, TOKENIZER, WEIGHTS, SmallSize
from rlft.policy.pi0.policy import Pi0Policy
from rlft.policy.pi0.small import SmallPI0, SmallPI0Config, SmallPI05, SmallPI05Config
from rlft.policy.pi0.tokenizer import PALIGEMMA, PromptTokenizer, build_small_tokenizer, load_tokenizer
from rlft.policy.weights_io import load_weights, save_weights
from rlft.seeding import seed_for

log = logging.getLogger(__name__)

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
    model: ModelConfig,
    stats: NormStats,
    *,
    horizon: int,
    device: torch.device,
    num_steps: int = 10,
    seed: int = 0,
    weights: Path | None = None,
    real_dims: Sequence[int] | None = None,
    state_dims: Sequence[int] | None = None,
    tokenizer_source: str | None = None,
) -> Pi0Policy:
    """Build a policy as :meth:`rlft.policy.base.PolicyFamily.build` says; ``model.kind`` is one of the architectures.

    ``weights`` is a safetensors file in lerobot's or ``lerobot/pi0_base``'s layout. On the meta device no tokenizer is
    downloaded. ``real_dims`` and ``state_dims`` are where the d action and the S state dimensions sit in the model's;
    None: they are its first. ``tokenizer_source`` is what a checkpoint remembers where ``model.tokenizer_path`` is a
    copy.
    """
    config = _lerobot_config(model, stats, horizon=horizon, num_steps=num_steps, device=device)
    return Pi0Policy(
        _core(model.kind, config, device, seed, weights),
        stats,
        _tokenizer(config, model.tokenizer_path, tokenizer_source, device),
        real_dims=real_dims,
        state_dims=state_dims,
        train_vlm=model.train_vlm,
        recompute=model.gradient_checkpointing,
    )


def core_shapes(model: ModelConfig) -> dict[str, torch.Tensor]:
    """The weights that a core of this kind and these sizes has, on the meta device; robot and cameras change none."""
    any_robot, meta = NormStats((), (), (), (), env_id="any", control_mode="any"), torch.device("meta")
    config = _lerobot_config(model, any_robot, horizon=1, num_steps=1, device=meta)
    return dict(_core(model.kind, config, meta).state_dict())


def save_policy(policy: Pi0Policy, target: Path) -> dict[str, Any]:
    """Write the policy's files; gives what they do not say."""
    where = {"real_dims": policy.real_dims, "state_dims": policy.state_dims}
    for name, dims in where.items():
        if dims != tuple(range(len(dims))):
            log.warning(
                "%s: %s=%s are not the model's first %d; lerobot's pipelines cannot say so, and lerobot would read the "
                "first %d instead. rlft itself reads them from its own description.",
                *(target, name, list(dims), len(dims), len(dims)),
            )
    policy.config._save_pretrained(target)
    save_weights(policy.model, target / WEIGHTS)
    for pipeline in _lerobot_pipelines(policy):
        pipeline.save_pretrained(target)
    policy.tokenizer.tokenizer.save_pretrained(target / TOKENIZER)
    small = isinstance(policy.config, SmallPI0Config | SmallPI05Config)
    return {
        "small": asdict(policy.config.size) if small else {},
        "num_steps": policy.config.num_inference_steps,
        **where,
        "token_length": policy.prompt_length,
        "tokenizer_source": policy.tokenizer.source,
    }


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


def _lerobot_config(
    model: ModelConfig, stats: NormStats, *, horizon: int, num_steps: int, device: torch.device
) -> PI0Config | PI05Config:
    config_class, _ = ARCHITECTURES[model.kind]
    side, extra = IMAGE_SIZE, dict[str, Any]()
    if issubclass(config_class, SmallPI0Config | SmallPI05Config):
        extra["size"] = SmallSize.from_settings(model.small)
        side = extra["size"].image_size
    frame = PolicyFeature(type=FeatureType.VISUAL, shape=(3, side, side))
    state = PolicyFeature(type=FeatureType.STATE, shape=(stats.state_dim,))
    action = PolicyFeature(type=FeatureType.ACTION, shape=(stats.act_dim,))
    mode = MODES[stats.method]
    config = config_class(
        **extra,
        dtype=model.dtype,
        chunk_size=horizon,
        n_action_steps=horizon,
        num_inference_steps=num_steps,
        image_resolution=(side, side),
        device=(HOST if device.type == "meta" else device).type,
        input_features={f"observation.images.{name}": frame for name in stats.cameras} | {"observation.state": state},
        output_features={"action": action},
        normalization_mapping={"VISUAL": NormalizationMode.IDENTITY, "STATE": mode, "ACTION": mode},
    )
    widths = {"state": (stats.state_dim, config.max_state_dim), "action": (stats.act_dim, config.max_action_dim)}
    for name, (width, limit) in widths.items():
        if width > limit:
            raise ConfigError(f"The {name} has {width} dimensions; {model.kind} takes at most {limit}.")
    return config


def _core(kind: str, config: Any, device: torch.device, seed: int = 0, weights: Path | None = None) -> Any:
    """The core, a module of lerobot's, with random weights or those of a file."""
    # With weights to come, first shapes alone, which are then filled: the model never exists twice.
    shapes_only = device.type == "meta" or weights is not None
    with torch.random.fork_rng(devices=[]), torch.device("meta") if shapes_only else contextlib.nullcontext():
        torch.manual_seed(seed_for(seed, "policy-weights"))
        core = ARCHITECTURES[kind][1](config)
    if weights is None:
        core.to(device)
    else:
        load_weights(core, weights, device)
    restore_buffers(core)
    return core


def _tokenizer(config: Any, path: str | None, source: str | None, device: torch.device) -> PromptTokenizer | None:
    vocab = config.size.vocab if isinstance(config, SmallPI0Config | SmallPI05Config) else None
    if device.type == "meta" and path is None and vocab is None:
        return None
    tokenizer = build_small_tokenizer(vocab) if vocab and path is None else load_tokenizer(path or PALIGEMMA)
    if len(tokenizer) > (limit := vocab or PALIGEMMA_VOCAB):
        raise ConfigError(f"model.tokenizer_path={path!r}: {len(tokenizer)} tokens, but the model knows {limit}.")
    source = source or path or (TOKENIZER_OF_SMALL if vocab else PALIGEMMA)
    return PromptTokenizer(tokenizer, config.tokenizer_max_length, source=source)


def _lerobot_pipelines(policy: Pi0Policy) -> tuple[Any, Any]:
    """Build lerobot's pre- and postprocessor with our tokenizer and statistics.

    The steps and their order are those of lerobot's factory, which cannot be called: it downloads PaliGemma's tokenizer
    whichever one is wanted. They are complete where the real dimensions are the first ones. Below -1 π0.5's prompt
    differs, see :func:`rlft.policy.pi0.policy.state_prompt`.
    """
    config, stats, ours = policy.config, policy.stats, policy.tokenizer
    state = _lerobot_stats(stats.method, stats.state_mean, stats.state_std)
    action = _lerobot_stats(stats.method, stats.action_mean, stats.action_std)
    common = make_default_policy_processor_steps(config, {"observation.state": state, "action": action})
    relative = RelativeActionsProcessorStep(enabled=False)
    absolute = AbsoluteActionsProcessorStep(enabled=False, relative_step=relative)
    tokenizer = TokenizerProcessorStep(tokenizer=ours.tokenizer, max_length=ours.max_length, padding_side="right")
    # Only a tokenizer's name is written out; it was given as an object, so as not to be looked up here.
    tokenizer.tokenizer, tokenizer.tokenizer_name = None, ours.source
    before: list[ProcessorStep] = [common.rename_observations, common.add_batch_dim]
    if policy.is_pi05:
        prompt = Pi05PrepareStateTokenizerProcessorStep(max_state_dim=config.max_state_dim)
        before += [relative, common.normalize, prompt, tokenizer, common.to_device]
    else:
        before += [Pi0NewLineProcessor(), tokenizer, common.to_device, relative, common.normalize]
    after: list[ProcessorStep] = [common.unnormalize, absolute, common.to_cpu]
    return make_policy_processor_pipelines(input_steps=before, output_steps=after)


def _lerobot_stats(method: str, mean: Sequence[float], std: Sequence[float]) -> dict[str, torch.Tensor]:
    """A centre and a spread under lerobot's names for the numbers of a method."""
    centre, spread = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    if method == "mean_std":
        return {"mean": centre.float(), "std": spread.float()}
    low, high = ("q01", "q99") if method == "quantiles" else ("min", "max")
    return {low: (centre - spread).float(), high: (centre + spread).float()}
