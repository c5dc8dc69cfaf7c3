"""The checkpoint of a policy: lerobot's layout, with what lerobot does not record beside it.

``pretrained_model/``::

    config.json, model.safetensors                       lerobot's configuration and weights
    policy_preprocessor.json, policy_postprocessor.json  lerobot's pipelines, with the normalisation statistics
    rlft_policy.json                                     kind, sizes, action dimensions, cameras, statistics
    tokenizer/                                           the tokenizer itself
    manifest.json                                        size and SHA-256 of all of these
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
from rlft.manifest import MANIFEST, find_damage, write_manifest
from rlft.policy.pi0.factory import ARCHITECTURES, build_policy, core_shapes
from rlft.policy.pi0.policy import Pi0Policy
from rlft.policy.pi0.sizes import is_small
from rlft.policy.weights_io import WeightsError, check_weights, save_weights

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
POLICY = "rlft_policy.json"
TOKENIZER = "tokenizer"
FORMAT = 1


def save_pretrained(policy: Pi0Policy, directory: str | Path) -> None:
    """Write the checkpoint into a new or empty directory (the caller renames it into place).

    Raises:
        FileExistsError: the directory holds something.
    """
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty; a checkpoint is written into a new directory.")
    for name, dims in (("act_dims", policy.act_dims), ("state_dims", policy.state_dims)):
        if dims != list(range(len(dims))):
            log.warning(
                "%s: %s=%s are not the model's first %d; lerobot's pipelines cannot say so, and lerobot would read the "
                "first %d instead. rlft itself reads them from %s.",
                *(target, name, dims, len(dims), len(dims), POLICY),
            )
    policy.config._save_pretrained(target)
    save_weights(policy.model, target / WEIGHTS)
    for pipeline in _lerobot_pipelines(policy):
        pipeline.save_pretrained(target)
    policy.tokenizer.save(target / TOKENIZER)
    (target / POLICY).write_text(json.dumps(_describe(policy), indent=2) + "\n")
    write_manifest(target)


def load_pretrained(
    directory: str | Path,
    *,
    device: torch.device,
    dtype: str | None = None,
    stats: NormStats | None = None,
    tokenizer_path: str | None = None,
    train_vlm: bool = False,
    recompute: bool = False,
    verified: bool = False,
) -> Pi0Policy:
    """Load a checkpoint that :func:`save_pretrained` wrote; nothing is left at random.

    Args:
        directory: ``pretrained_model/``.
        device: where the weights go.
        dtype: ``float32`` or ``bfloat16``; None: as saved.
        stats: other statistics than those of the checkpoint.
        tokenizer_path: another tokenizer than that of the checkpoint.
        train_vlm: see :func:`rlft.policy.pi0.factory.build_policy`.
        recompute: see there.
        verified: its files were compared with their manifest just now (:func:`rlft.run.checkpoint.find_resume`).

    Raises:
        WeightsError: a file is missing, damaged, or does not fit; it is named.
        StatsError: the statistics are broken.
    """
    source = Path(directory)
    if not verified:
        _verify(source)
    facts = _read_description(source)
    return build_policy(
        facts["kind"],
        stats or NormStats.from_dict(facts["stats"], source=str(source / POLICY)),
        horizon=facts["horizon"],
        device=device,
        small=facts["small"],
        dtype=dtype or facts["dtype"],
        tokenizer_path=tokenizer_path or str(source / TOKENIZER),
        tokenizer_source=tokenizer_path or facts["tokenizer_source"],
        token_length=facts["token_length"],
        act_dims=facts["act_dims"],
        state_dims=facts["state_dims"],
        train_vlm=train_vlm,
        recompute=recompute,
        num_steps=facts["num_steps"],
        weights=source / WEIGHTS,
    )


def inspect_pretrained(directory: str | Path) -> dict[str, Any]:
    """What can be known of a checkpoint in seconds: all of its description, and of its weights the keys and shapes.

    Returns:
        kind, horizon, stats and the rest of ``rlft_policy.json``. Only :func:`load_pretrained` reads the weights, and
        compares them with the manifest.

    Raises:
        WeightsError: a file is missing, damaged, or does not fit; it is named.
    """
    source = Path(directory)
    _verify(source, unread=(WEIGHTS,))
    facts = _read_description(source)
    check_weights(source / WEIGHTS, core_shapes(facts["kind"], facts["small"]))
    return facts


def _verify(source: Path, unread: Sequence[str] = ()) -> None:
    """Compare with the manifest, where there is one: weights of others have none."""
    if (source / MANIFEST).is_file() and (reason := find_damage(source, unread=unread)) is not None:
        raise WeightsError(f"{source}: {reason}")


def _describe(policy: Pi0Policy) -> dict[str, Any]:
    kind = next(name for name, (config, _) in ARCHITECTURES.items() if type(policy.config) is config)
    return {
        "format": FORMAT,
        "kind": kind,
        "small": dataclasses.asdict(policy.config.size) if is_small(kind) else None,
        "horizon": policy.horizon,
        "dtype": policy.config.dtype,
        "num_steps": policy.config.num_inference_steps,
        "act_dims": policy.act_dims,
        "state_dims": policy.state_dims,
        "token_length": policy.tokenizer.length or None,
        "tokenizer_source": policy.tokenizer.source,
        "stats": policy.stats.to_dict(),
    }


def _read_description(source: Path) -> dict[str, Any]:
    path = source / POLICY
    if not path.is_file():
        what = "a lerobot checkpoint without it" if (source / WEIGHTS).is_file() else "no checkpoint"
        raise WeightsError(
            f"{path} is missing: {source} is {what}. For weights of lerobot's own, give model.kind and dataset_stats, "
            "so that the policy can be built around them."
        )
    try:
        facts = json.loads(path.read_text())
    except ValueError as error:
        raise WeightsError(f"{path}: no readable JSON ({error}).") from error
    wanted = {"format", "kind", "small", "horizon", "dtype", "num_steps", "act_dims", "state_dims"}
    wanted |= {"token_length", "tokenizer_source", "stats"}
    if not isinstance(facts, dict) or set(facts) != wanted:
        got = sorted(facts) if isinstance(facts, dict) else type(facts).__name__
        raise WeightsError(f"{path}: wanted the fields {sorted(wanted)}, got {got}.")
    if facts["format"] != FORMAT:
        raise WeightsError(f"{path}: format {facts['format']!r}; this version reads {FORMAT}.")
    return facts


def _lerobot_pipelines(policy: Pi0Policy) -> tuple[Any, Any]:
    """Build lerobot's pre- and postprocessor with our tokenizer and statistics.

    The steps and their order are those of lerobot's factory, which cannot be called: it downloads PaliGemma's
    tokenizer whichever one is wanted. The pipelines are complete where the
    real dimensions are the first ones. Below -1 π0.5's prompt differs, see
    :func:`rlft.policy.pi0.transforms.state_prompt`.
    """
    config, stats = policy.config, policy.stats
    numbers = {
        "observation.state": _lerobot_stats(stats.method, stats.state_mean, stats.state_std),
        "action": _lerobot_stats(stats.method, stats.action_mean, stats.action_std),
    }
    common = make_default_policy_processor_steps(config, numbers)
    relative = RelativeActionsProcessorStep(enabled=False)
    tokenizer = TokenizerProcessorStep(
        tokenizer=policy.tokenizer.tokenizer, max_length=policy.tokenizer.max_length, padding_side="right"
    )
    # Only a tokenizer's name is written out; it was given as an object, so as not to be looked up here.
    tokenizer.tokenizer, tokenizer.tokenizer_name = None, policy.tokenizer.source
    before: list[ProcessorStep] = [common.rename_observations, common.add_batch_dim]
    if policy.is_pi05:
        state = Pi05PrepareStateTokenizerProcessorStep(max_state_dim=config.max_state_dim)
        before += [relative, common.normalize, state, tokenizer, common.to_device]
    else:
        before += [Pi0NewLineProcessor(), tokenizer, common.to_device, relative, common.normalize]
    after: list[ProcessorStep] = [
        common.unnormalize,
        AbsoluteActionsProcessorStep(enabled=False, relative_step=relative),
        common.to_cpu,
    ]
    return make_policy_processor_pipelines(input_steps=before, output_steps=after)


def _lerobot_stats(method: str, mean: Sequence[float], std: Sequence[float]) -> dict[str, torch.Tensor]:
    """A centre and a spread under lerobot's names for the numbers of a method."""
    centre, spread = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    if method == "mean_std":
        named = {"mean": centre, "std": spread}
    else:
        low, high = ("q01", "q99") if method == "quantiles" else ("min", "max")
        named = {low: centre - spread, high: centre + spread}
    return {name: torch.tensor(numbers, dtype=torch.float32) for name, numbers in named.items()}
