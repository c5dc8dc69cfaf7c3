"""Small policies with weights that hide nothing, and observations for them; shared by the π0 tests."""

import numpy as np
import torch

from rlft.config.schema import ModelConfig
from rlft.data.normalize import NormStats
from rlft.policy.pretrained import build_policy
from rlft.types import Observation

torch.set_num_threads(1)  # the models are too small to share, and threads that wait for each other cost seconds

CPU = torch.device("cpu")
CAMERAS = ("front", "wrist")
N, H, D, S = 3, 5, 32, 4
TASKS = ("Push the cube to the goal region.", "Pull it", "Stack the red cube on top of the green cube.")


def make_stats(cameras=CAMERAS):
    actions = ((0.0, 0.1, 0.2), (1.0, 2.0, 0.5))
    return NormStats((0.1,) * S, (0.5,) * S, *actions, "Env-v1", "pd", cameras)


def make_policy(kind="small", cameras=CAMERAS, *, real_dims=None, state_dims=None, **model):
    where = {"real_dims": real_dims, "state_dims": state_dims}
    policy = build_policy(ModelConfig(kind, **model), make_stats(cameras), horizon=H, device=CPU, **where)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # gates and norms that start at zero would hide mistakes
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    return policy


def make_observation(n=N, seed=0, size=56):
    rng = np.random.default_rng(seed)
    images = {name: rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8) for name in CAMERAS}
    return Observation(images, rng.normal(size=(n, S)).astype(np.float32), (list(TASKS) * n)[:n])


def make_chunk(n=N, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, H, D, generator=generator), torch.rand(n, generator=generator) * 0.99 + 0.01


def lerobot_prefix(inputs):
    """The arguments that lerobot's core takes for what we call PolicyInput."""
    images = [image.float() / 127.5 - 1.0 for image in inputs.images.unbind(1)]
    present = [torch.ones(len(image), dtype=torch.bool) for image in images]
    return images, present, inputs.tokens, inputs.token_mask


def joint_velocity(policy, inputs, x, t):
    """lerobot's velocity out of its joint training forward, which only gives the loss (noise - actions - v)^2.

    With noise = actions = x the noisy chunk is x whatever t is, and the loss is v^2; the sign comes from a
    second pass whose noise and actions move apart while the noisy chunk stays.
    """
    state = () if policy.is_pi05 else (inputs.state,)
    prefix = lerobot_prefix(inputs)
    square = policy.model.forward(*prefix, *state, x, x, t)
    apart = policy.model.forward(*prefix, *state, x - t[:, None, None], x + (1 - t)[:, None, None], t)
    sign = torch.sign(1.0 + square - apart).detach()
    return sign * square.clamp(min=1e-12).sqrt()
