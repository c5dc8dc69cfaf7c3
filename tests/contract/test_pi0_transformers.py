"""A second opinion: transformers' own π0 gives the same velocity with the same weights."""

import copy

import numpy as np
import pytest
import torch
from transformers.models.pi0.configuration_pi0 import PI0Config
from transformers.models.pi0.modeling_pi0 import PI0ForConditionalGeneration

from rlft.config.schema import ModelConfig
from rlft.data.normalize import NormStats
from rlft.policy.pretrained import build_policy
from rlft.types import Observation

H, N, PATCHES = 5, 3, 16
NAMES = {
    "paligemma_with_expert.paligemma.model.": "model.vlm.",
    "paligemma_with_expert.gemma_expert.model.": "model.dit.",
    "action_out_proj.": "action_out_proj.",
    "action_in_proj.": "embed_action_time.action_in_proj.",
    "action_time_mlp_": "embed_action_time.action_time_mlp_",
    "state_proj.": "embed_action_time.state_proj.",
}


@pytest.fixture
def policy():
    stats = NormStats((0.0,) * 4, (1.0,) * 4, (0.0,) * 3, (1.0,) * 3, "Env-v1", "pd", ("front", "wrist"))
    policy = build_policy(ModelConfig(), stats, horizon=H, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy


def transformers_twin(policy):
    backbone = policy.model.paligemma_with_expert
    config = PI0Config(
        vlm_config=copy.deepcopy(backbone.paligemma.config),
        dit_config=copy.deepcopy(backbone.gemma_expert.config),
        chunk_size=H,
    )
    twin = PI0ForConditionalGeneration(config)
    state = {}
    for key, tensor in policy.model.state_dict().items():
        for ours, theirs in NAMES.items():
            if key.startswith(ours):
                state[key.replace(ours, theirs, 1)] = tensor
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert unexpected == []
    assert missing == ["model.dit.embed_tokens.weight"]  # the expert reads no words
    return twin.eval()


def test_velocity_equals_transformers(policy):
    rng = np.random.default_rng(0)
    obs = Observation(
        {name: rng.integers(0, 256, (N, 56, 56, 3), dtype=np.uint8) for name in policy.cameras},
        rng.normal(size=(N, 4)).astype(np.float32),
        ["Push the cube to the goal region.", "Pull it", "Stack the red cube on the green cube."],
    )
    inputs = policy.prepare(obs)
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(N, H, 32, generator=generator), torch.tensor([1.0, 0.5, 0.1])
    twin = transformers_twin(policy)
    image = torch.full((N, 2 * PATCHES), twin.config.vlm_config.image_token_id)
    ours, _ = policy.velocity(policy.encode(inputs), x, t)
    theirs = twin(
        state=inputs.state,
        noise=x,
        timestep=t,
        input_ids=torch.cat([image, inputs.tokens], dim=1),
        pixel_values=inputs.images.float() / 127.5 - 1.0,
        pixel_attention_mask=torch.ones(N, 2, dtype=torch.bool),
        attention_mask=torch.cat([torch.ones_like(image), inputs.token_mask.long()], dim=1),
    ).logits
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
