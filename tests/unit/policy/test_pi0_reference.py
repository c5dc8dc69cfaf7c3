"""The policy against lerobot's own forward passes, on the same weights."""

import numpy as np
import pytest
import torch
from lerobot.policies.common.vla_utils import make_att_2d_masks, prepare_attention_masks_4d
from rlft.data.normalize import NormStats
from rlft.policy.factory import build_policy
from rlft.types import Observation
from transformers import DynamicCache

N, H, D, S, A = 3, 5, 32, 4, 3


def make_policy(kind="small", cameras=("front", "wrist"), **kwargs):
    stats = NormStats((0.1,) * S, (0.5,) * S, (0.0, 0.1, 0.2), (1.0, 2.0, 0.5), "Env-v1", "pd", cameras)
    policy = build_policy(kind, stats, horizon=H, device=torch.device("cpu"), **kwargs)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # zero-initialised gates and norms would hide mistakes
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    return policy


def make_observation(n=N, seed=0, cameras=("front", "wrist")):
    rng = np.random.default_rng(seed)
    images = {name: rng.integers(0, 256, (n, 56, 56, 3), dtype=np.uint8) for name in cameras}
    tasks = ["Push the cube to the goal region.", "Pull it", "Stack the red cube on top of the green cube."]
    return Observation(images, rng.normal(size=(n, S)).astype(np.float32), (tasks * n)[:n])


def lerobot_inputs(policy, inputs):
    images = [image.float() / 127.5 - 1.0 for image in inputs.images.unbind(1)]
    masks = [torch.ones(len(image), dtype=torch.bool) for image in images]
    return images, masks, inputs.tokens, inputs.token_mask


def joint_velocity(policy, inputs, x, t):
    """lerobot's training forward: its loss is (u - v)^2 with u = noise - actions; take v from two losses."""
    core = policy.model
    state = () if policy.is_pi05 else (inputs.state,)
    losses = []
    for shift in (0.0, 1.0):
        # x_t = t * noise + (1 - t) * actions is kept while u = noise - actions moves by the shift.
        noise = x + (1 - t)[:, None, None] * shift
        actions = x - t[:, None, None] * shift
        losses.append(core.forward(*lerobot_inputs(policy, inputs), *state, actions, noise, t))
    return (1.0 - (losses[1] - losses[0])) / 2.0


@pytest.fixture(params=["small", "small_pi05"])
def policy(request):
    return make_policy(request.param)


def test_prefix_then_denoise_equals_the_joint_forward(policy):
    inputs = policy.prepare(make_observation())
    x, t = torch.randn(N, H, D), torch.tensor([1.0, 0.4, 0.05])
    velocity, features = policy.velocity(policy.encode(inputs), x, t)
    torch.testing.assert_close(velocity, joint_velocity(policy, inputs, x, t), atol=2e-5, rtol=1e-4)
    assert features.shape == (N, H, policy.feature_dim)
    assert velocity.dtype == features.dtype == torch.float32
