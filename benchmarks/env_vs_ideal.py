"""Environment steps/s of our workers against the ideal: a bare loop of A steps and one image, times the workers.

Before each measurement all episodes start anew, so that all sides step and render the very same trajectories.
"""

import os
import statistics
from collections.abc import Iterator

import numpy as np

from benchmarks.env_sides import BareLoop, OurSide, env_settings, random_actions
from benchmarks.harness import Pairs, Row, Settings, in_turns

BUDGET_S = 80
SIDE = 128  # pixels
NUM_WORKERS = 2
ENVS_PER_WORKER = 2
GOAL = 0.85
CHUNKS = {5: 6, 10: 4}  # act_steps -> chunks of every environment in one measurement


def run(settings: Settings) -> Iterator[Row]:
    """Chunks of 5 and 10 steps."""
    from rlft_envs.simulator import make_vec_env

    task = env_settings(SIDE, NUM_WORKERS * ENVS_PER_WORKER, NUM_WORKERS)
    env = make_vec_env(task)
    actions = random_actions(env)
    loops = [BareLoop(task, actions, part.tolist()) for part in np.array_split(np.arange(task.num_envs), NUM_WORKERS)]
    try:
        for loop in loops:
            loop.wait_ready()
        ours = OurSide(env, actions)
        for act_steps in CHUNKS:
            yield _compare(ours, loops, act_steps, settings.pairs)
    finally:
        for loop in loops:
            loop.close()
        env.close()


def _compare(ours: OurSide, loops: list[BareLoop], act_steps: int, pairs: int) -> Row:
    def reset() -> None:
        ours.reset(range(NUM_WORKERS * ENVS_PER_WORKER))
        for loop in loops:
            loop.reset()

    def one_by_one() -> float:
        done = 0.0
        for loop in loops:
            loop.begin(CHUNKS[act_steps], act_steps)
            done += loop.end()
        return done

    def together() -> float:
        for loop in loops:
            loop.begin(CHUNKS[act_steps], act_steps)
        return sum(loop.end() for loop in loops)

    works = {"ours": lambda: ours.work(CHUNKS[act_steps], act_steps), "alone": one_by_one, "together": together}
    reset()
    rates = in_turns(works, pairs, before=reset)
    ideal = [NUM_WORKERS * alone for alone in rates["alone"]]
    limit = statistics.median(Pairs(rates["together"], ideal).ratios)
    share = statistics.median(Pairs(rates["ours"], rates["together"]).ratios)
    return Pairs(rates["ours"], ideal).row(
        "env_vs_ideal",
        f"PushCube-v1, {SIDE} x {SIDE}, {NUM_WORKERS} workers of {ENVS_PER_WORKER}, A = {act_steps}",
        unit="steps/s",
        baseline=f"one bare loop of {act_steps} steps and one image, on one core, times {NUM_WORKERS}",
        goal=GOAL,
        explanation=(
            f"{NUM_WORKERS} bare loops side by side, without workers, messages or episode rules, reach {limit:.2f} of "
            f"{NUM_WORKERS} times one alone: that is what this machine's cores take from each other. "
            f"Of what the loops reach side by side, the workers reach {share:.2f}."
        ),
        facts={
            "loops_side_by_side_of_ideal": limit,
            "ours_of_loops_side_by_side": share,
            "one_loop_steps_per_s": statistics.median(rates["alone"]),
            "cores": len(os.sched_getaffinity(0)),
        },
    )
