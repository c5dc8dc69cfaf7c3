"""Seconds of a PPO iteration (rollout and update) over the number of environments and over the rollout's length.

The exponent b of seconds = a size^b is fitted to the medians; 1 is linear. The demo's task and policy, and the
simulators in this process, so that every size shares what is fixed: one process and one renderer.
"""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.harness import Row, Settings, exponent, in_turns
from rlft.types import VecEnv

BUDGET_S = 96
NAME = "scaling"
GOAL = 1.05
ACT_STEPS = 5
NUM_ENVS = (2, 4, 8, 16)  # at DECISIONS each
DECISIONS = 3
LENGTHS = (3, 6, 12, 24)  # decisions of LENGTH_ENVS environments
LENGTH_ENVS = 2  # one of NUM_ENVS
BATCH = 6  # samples of a minibatch: what the smallest iteration has


class Iteration:
    """A whole PPO iteration, as the runner runs it.

    Args:
        num_envs: E.
        decisions: T.
        envs: environments to use; None builds them.
    """

    def __init__(self, num_envs: int, decisions: int, envs: list[VecEnv] | None = None) -> None:
        from benchmarks import ppo_parts
        from rlft.learn.updater import Updater
        from rlft.run.assembly.envs import build_rollout_envs

        overrides = [
            "task=push_cube",
            f"env.num_envs={num_envs}",
            f"env.n_steps_rollout={decisions * ACT_STEPS}",
            f"act_steps={ACT_STEPS}",
            f"train.batch_size={BATCH}",
            "sim.num_workers=0",
            "sim.overlap=false",
        ]
        self.cfg, self.size, self._count = ppo_parts.settings(overrides), num_envs * decisions, 0
        self.envs = envs if envs is not None else build_rollout_envs(self.cfg)
        self.objective = ppo_parts.make_objective(self.cfg, self.envs)
        self._sampler = ppo_parts.make_sampler(self.cfg, self.envs, self.objective)
        self._updater = Updater(self.objective, self.cfg.train)

    def work(self) -> float:
        """One iteration; counts 1, so that a rate is iterations per second."""
        from rlft.seeding import generator_for

        rollout, _ = self._sampler.collect(self._count)
        self.objective.calibrate(rollout)
        rollout.assign(self.objective.signal(rollout).rows)
        self._updater.update(rollout, self._count, generator_for(self.cfg.seed, "minibatches", self._count))
        self._count += 1
        return 1.0


def run(settings: Settings) -> Iterator[Row]:
    """Over environments, then over the rollout's length, in the smallest of the environments."""
    by_envs = {n: Iteration(n, DECISIONS) for n in NUM_ENVS}
    try:
        yield _fit("environments", by_envs, settings, {"decisions": DECISIONS})
        small = by_envs[LENGTH_ENVS].envs
        by_length = {n * LENGTH_ENVS: Iteration(LENGTH_ENVS, n, small) for n in LENGTHS}
        yield _fit("samples in the buffer", by_length, settings, {"environments": LENGTH_ENVS})
    finally:
        for iteration in by_envs.values():
            for env in iteration.envs:
                env.close()


def _fit(what: str, iterations: Mapping[int, Iteration], settings: Settings, facts: dict[str, Any]) -> Row:
    rates = in_turns({str(size): iteration.work for size, iteration in iterations.items()}, settings.pairs)
    sizes = list(iterations)
    rounds = [[1 / rates[str(size)][i] for size in sizes] for i in range(settings.pairs)]
    medians = [statistics.median(column) for column in zip(*rounds)]
    slopes = [exponent(sizes, seconds) for seconds in rounds]
    steps = [
        f"{sizes[i]} to {sizes[i + 1]}: {medians[i + 1] / medians[i]:.2f} times the time" for i in range(len(sizes) - 1)
    ]
    return Row(
        benchmark=NAME,
        case=f"{what} {', '.join(map(str, sizes))}",
        measure="exponent",
        value=exponent(sizes, medians),
        low=min(slopes),
        high=max(slopes),
        ours=medians[-1],
        theirs=None,
        unit=f"s at {sizes[-1]}",
        baseline="an iteration whose time grows in proportion: exponent 1",
        pairs=settings.pairs,
        goal=GOAL,
        at_most=True,
        explanation=f"Where it grows faster than its size: {'; '.join(steps)}.",
        facts={"seconds": dict(zip(map(str, sizes), medians)), **facts},
    )
