"""Environment steps/s: our workers, which render once per chunk, against stock ManiSkill, rendered at every step.

No episode ends on either side while it is measured, and the first images of both sides are compared bit for bit.
"""

import statistics
from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.env_sides import OurSide, StockSide, env_settings, random_actions
from benchmarks.harness import Pairs, Row, Settings, in_turns

BUDGET_S = 120
NUM_ENVS = NUM_WORKERS = 2  # a process per environment on both sides, and no more than the machine has cores
SIDES = (128, 224)  # pixels
GOALS = {5: 4.0, 10: 6.0}  # act_steps -> goal
STOCK_STEPS = 20  # of every environment in one measurement: about two seconds
CHUNKS = 16  # of every environment in one measurement


def run(settings: Settings) -> Iterator[Row]:
    """Both image sizes, chunks of 5 and 10 steps."""
    from rlft_envs.simulator import make_vec_env

    for side in SIDES[:1] if settings.quick else SIDES:
        task = env_settings(side, NUM_ENVS, NUM_WORKERS)
        env = make_vec_env(task)
        actions = random_actions(env)
        stock = StockSide(task, actions)
        try:
            yield from _compare(side, OurSide(env, actions), stock, settings.pairs)
        finally:
            stock.close()
            env.close()


def _compare(side: int, ours: OurSide, stock: StockSide, pairs: int) -> Iterator[Row]:
    seeds = list(range(NUM_ENVS))
    mine, others = ours.reset(seeds), stock.reset(seeds)
    for name, image in others.items():
        if not np.array_equal(mine[name], image):
            raise AssertionError(
                f"{side} pixels: our first image differs from stock ManiSkill's; compare like with like"
            )
    works = {str(A): partial(ours.work, CHUNKS, A) for A in GOALS} | {"stock": partial(stock.work, STOCK_STEPS)}
    rates = in_turns(works, pairs)
    # Milliseconds per environment of one worker: a chunk is A steps and an image, so two lengths give both costs.
    chunk = {A: 1e3 * A * NUM_WORKERS / statistics.median(rates[str(A)]) for A in GOALS}
    step_ms = (chunk[10] - chunk[5]) / 5
    image_ms, stock_ms = chunk[5] - 5 * step_ms, 1e3 * NUM_ENVS / statistics.median(rates["stock"])
    for A, goal in GOALS.items():
        yield Pairs(rates[str(A)], rates["stock"]).row(
            "env_chunk_render",
            f"PushCube-v1, {side} x {side}, {NUM_ENVS} environments, A = {A}",
            unit="steps/s",
            baseline="stock ManiSkill in AsyncVectorEnv, a process per environment, an image at every step",
            goal=goal,
            explanation=(
                f"A chunk of 5 takes {chunk[5]:.1f} ms and one of 10 {chunk[10]:.1f} ms in a worker, that is "
                f"{step_ms:.1f} ms a step and {image_ms:.1f} ms for what comes once a chunk; a stock step with its "
                f"image takes {stock_ms:.1f} ms. The pairs range as the row shows."
            ),
            facts={
                "step_ms": step_ms,
                "once_per_chunk_ms": image_ms,
                "stock_step_ms": stock_ms,
                "workers": NUM_WORKERS,
                "stock_processes": NUM_ENVS,
                "first_pictures_equal": True,
            },
        )
