"""lerobot's own π0 policy around the same core and weights, fed by its own processors: two benchmarks' other side.

Its constructor builds the real size only, so the policy object is put around our core, as its constructor would around
its own. Nothing of its forward passes is touched.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from lerobot.policies.pi0.modeling_pi0 import PI0Policy
from lerobot.policies.pi0.processor_pi0 import Pi0NewLineProcessor
from lerobot.processor import (
    ProcessorStep,
    TokenizerProcessorStep,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)
from torch import Tensor, nn

from rlft.policy.pi0.policy import Pi0Policy
from rlft.types import Observation

Batch = dict[str, Any]


def lerobot_policy(policy: Pi0Policy, *, own_weights: bool) -> PI0Policy:
    """Lerobot's policy with the same weights.

    Args:
        policy: ours.
        own_weights: a copy of the weights, all of them training, instead of the same tensors.
    """
    side: Any = PI0Policy.__new__(PI0Policy)
    nn.Module.__init__(side)
    side.config, side.rtc_processor = policy.config, None
    side.model = copy.deepcopy(policy.model) if own_weights else policy.model
    if own_weights:
        side.model.requires_grad_(True)
    return side


def train_expert_only(side: PI0Policy) -> None:
    """What ``train_expert_only=True`` does in lerobot's constructor."""
    backbone = side.model.paligemma_with_expert
    backbone.train_expert_only = True
    backbone._set_requires_grad()


def make_batch(policy: Pi0Policy, obs: Observation, *, token_length: int, actions: Tensor | None = None) -> Batch:
    """The same observations as lerobot's processors hand them to its policy.

    Args:
        policy: ours; gives the tokenizer and the statistics.
        obs: n rows.
        token_length: what prompts are padded to; 48 by lerobot's default.
        actions: float32 ``[n, H, d]``, controller units, for training.
    """
    prompts = dict.fromkeys(obs.task)
    if len(prompts) != 1:
        raise ValueError(f"{len(prompts)} instructions; one is wanted, so that both sides' prompts are equally long")
    batch: Batch = {
        f"observation.images.{name}": torch.as_tensor(frames).movedim(-1, 1).float().div(255.0)
        for name, frames in obs.images.items()
    }
    batch |= {"observation.state": torch.as_tensor(obs.state), "task": list(obs.task)}
    if actions is not None:
        batch["action"] = actions
    return _processors(policy, token_length)(batch)


def _processors(policy: Pi0Policy, token_length: int) -> Any:
    """Lerobot's steps for π0, with our tokenizer in the place of the gated one."""
    stats: Mapping[str, Any] = {
        "observation.state": {
            "mean": torch.tensor(policy.stats.state_mean),
            "std": torch.tensor(policy.stats.state_std),
        },
        "action": {"mean": torch.tensor(policy.stats.action_mean), "std": torch.tensor(policy.stats.action_std)},
    }
    steps = make_default_policy_processor_steps(policy.config, dict(stats))
    inputs: list[ProcessorStep] = [
        steps.rename_observations,
        steps.add_batch_dim,
        Pi0NewLineProcessor(),
        TokenizerProcessorStep(
            tokenizer=policy.tokenizer.tokenizer, max_length=token_length, padding_side="right", padding="max_length"
        ),
        steps.to_device,
        steps.normalize,
    ]
    before, _ = make_policy_processor_pipelines(input_steps=inputs, output_steps=[steps.unnormalize])
    return before
