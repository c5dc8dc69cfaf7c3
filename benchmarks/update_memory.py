"""Peak memory of one PPO minibatch: stored prefixes, prefixes encoded again, and K joint passes of the whole model.

What is counted is every byte that torch's allocator gives out and takes back during the minibatch: forward, backward
and optimiser steps. Unlike a process's resident size it is the same in every run. Weights, optimiser state and the
buffer are there before and not counted; the buffer's bytes stand in the facts.
"""

import statistics
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks import real_ratio_model as model
from benchmarks.harness import Row, Settings
from benchmarks.ppo_update import Side
from rlft.policy.pi0.policy import Pi0Input

BUDGET_S = 25
NAME = "update_memory"
ROWS = 4  # B
REPETITIONS = 2  # they only show that the number is the same


def run(settings: Settings) -> Iterator[Row]:
    """Both horizons against either other side."""
    size = "demo" if settings.quick else "wide"
    torch.set_num_threads(model.threads(size))
    for horizon in (50,) if settings.quick else (50, 10):
        yield from compare(size, horizon)


def compare(size: str, horizon: int) -> Iterator[Row]:
    """The rows of one horizon."""
    stored, images = (Side(size, horizon, "flow_noise", prefix=prefix, batch=ROWS) for prefix in (True, False))
    for side in (stored, images):
        side.update(1)  # optimiser state is made at the first step
    ours = [peak_bytes(lambda: stored.update(1)) for _ in range(REPETITIONS)]
    facts = model.facts(stored.policy, size, horizon) | {
        "batch_size": ROWS,
        "buffer_bytes_stored": stored.buffer.nbytes(),
        "buffer_bytes_images": images.buffer.nbytes(),
    }
    others: dict[str, Callable[[], Any]] = {
        "images encoded again": lambda: images.update(1),
        "K joint passes, gradients through the prefix": lambda: joint_passes(images),
    }
    for words, work in others.items():
        theirs = [peak_bytes(work) for _ in range(REPETITIONS)]
        yield Row(
            benchmark=NAME,
            case=f"H={horizon}, K={model.DENOISE_STEPS}, B={ROWS}, against {words}",
            measure="their peak over ours",
            value=statistics.median(theirs) / statistics.median(ours),
            low=min(theirs) / max(ours),
            high=max(theirs) / min(ours),
            ours=statistics.median(ours) / 1e6,
            theirs=statistics.median(theirs) / 1e6,
            unit="MB",
            baseline=words,
            pairs=REPETITIONS,
            facts=facts,
        )


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most memory that torch has out at once during a call, bytes beyond what it had before."""
    from torch.profiler import ProfilerActivity, profile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the profiler warns about its own life cycle
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            work()
    held = peak = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def joint_passes(side: Side) -> None:
    """The K denoise steps of a minibatch as lerobot trains: each a pass of prefix and expert, with gradients in both.

    The noisy chunks are the rollout's; with noise and actions both equal to it, lerobot's loss is the squared velocity,
    whose backward pass is as large as the surrogate's.
    """
    policy, steps = side.policy, model.DENOISE_STEPS
    batch = side.buffer.rows(torch.arange(ROWS))
    assert isinstance(batch.inputs, Pi0Input)
    rows = torch.arange(ROWS).repeat_interleave(steps)
    inputs, x = batch.inputs[rows], batch.trace.chain[:, :-1].flatten(0, 1)
    t = side.objective.actor.schedule.t[:-1].repeat(ROWS)
    backbone = policy.model.paligemma_with_expert
    backbone.requires_grad_(True)
    images = [image.float() / 127.5 - 1.0 for image in inputs.images.unbind(1)]
    present = [torch.ones(len(x), dtype=torch.bool) for _ in images]
    policy.model(images, present, inputs.tokens, inputs.token_mask, inputs.state, x, x, t).mean().backward()
    policy.zero_grad(set_to_none=True)
    policy.set_trainable(vlm=False)
