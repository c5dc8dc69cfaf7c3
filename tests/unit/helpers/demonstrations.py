"""Demonstrations in memory of images and states at random."""

import torch

from rlft.data.dataset import DemoSet
from rlft.data.episode import DemoMeta

META = DemoMeta("ToyReach-v0", "pd_ee_delta_pos", ("top",), ("tcp_pos",), 20, "test", 0, "test")


def random_demos(lengths=(14, 10), tasks=("reach", "reach"), horizon=3) -> DemoSet:
    """Episodes in which the action follows the state."""
    g, frames = torch.Generator().manual_seed(0), sum(lengths)
    state = torch.randn(frames, 2, generator=g)
    images = {"top": torch.randint(0, 255, (frames, 28, 28, 3), generator=g, dtype=torch.uint8)}
    words = [task for task, length in zip(tasks, lengths, strict=True) for _ in range(length)]
    return DemoSet(META, images, state, 0.5 * state + 0.1, torch.tensor(lengths), words, horizon=horizon)
