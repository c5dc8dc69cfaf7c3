"""The files of a policy: lerobot's layout, with what lerobot does not record beside it.

``pretrained_model/``::

    config.json, model.safetensors                       lerobot's configuration and weights
    policy_preprocessor.json, policy_postprocessor.json  lerobot's pipelines, with the normalisation statistics
    tokenizer/                                           the tokenizer itself

:mod:`rlft.policy.pretrained` adds the description (``rlft_policy.json``) and the manifest.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lerobot.policies.pi0.processor_pi0 import Pi0NewLineProcessor
from lerobot.policies.pi05.processor_pi05 import Pi05PrepareStateTokenizerProcessorStep
from lerobot.processor import (
    AbsoluteActionsProcessorStep,
    ProcessorStep,
    RelativeActionsProcessorStep,
    TokenizerProcessorStep,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)

from rlft.data.normalize import NormStats
from rlft.policy.pi0.factory import build_policy
from rlft.policy.pi0.policy import Pi0Policy
from rlft.policy.pi0.small import SmallPI0Config, SmallPI05Config
from rlft.policy.weights_io import save_weights

if TYPE_CHECKING:
    from rlft.config.schema import ModelConfig

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer"


def save(policy: Pi0Policy, target: Path) -> dict[str, Any]:
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
        "small": dataclasses.asdict(policy.config.size) if small else {},
        "num_steps": policy.config.num_inference_steps,
        **where,
        "token_length": policy.prompt_length,
        "tokenizer_source": policy.tokenizer.source,
    }


def load(
    source: Path, facts: Mapping[str, Any], model: ModelConfig, stats: NormStats, device: torch.device
) -> Pi0Policy:
    """Load what :func:`save` wrote; arguments as in :meth:`rlft.policy.base.PolicyFamily.load`."""
    policy = build_policy(
        facts["kind"],
        stats,
        horizon=facts["horizon"],
        device=device,
        small=facts["small"],
        dtype=model.dtype,
        tokenizer_path=model.tokenizer_path or str(source / TOKENIZER),
        tokenizer_source=model.tokenizer_path or facts["tokenizer_source"],
        real_dims=facts["real_dims"],
        state_dims=facts["state_dims"],
        train_vlm=model.train_vlm,
        recompute=model.gradient_checkpointing,
        num_steps=facts["num_steps"],
        weights=None if device.type == "meta" else source / WEIGHTS,
    )
    policy.prompt_length = facts["token_length"]
    return policy


def _lerobot_pipelines(policy: Pi0Policy) -> tuple[Any, Any]:
    """Build lerobot's pre- and postprocessor with our tokenizer and statistics.

    The steps and their order are those of lerobot's factory, which cannot be called: it downloads PaliGemma's tokenizer
    whichever one is wanted. They are complete where the real dimensions are the first ones. Below -1 π0.5's prompt
    differs, see :func:`rlft.policy.pi0.transforms.state_prompt`.
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
