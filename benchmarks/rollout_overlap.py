"""Environment steps/s of a rollout: a group is simulated while the policy decides for the other, against in turn.

Two cases. With both cores free for either part, the plain rollout uses them as well as it can: all workers at once,
then the policy with all threads, or with one, whichever is faster. With the simulators pinned to one core and the
policy to the other, the two stand for separate devices, which is what overlap is for.
"""

import os
import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Pairs, Row, Settings, in_turns

BUDGET_S = 105
NAME = "rollout_overlap"
NUM_ENVS, DECISIONS = 4, 6
ACT_STEPS, HORIZON = 16, 50  # chosen so that a chunk costs one core about what a decision costs one thread
GOAL = 1.3
CASE = f"PushCube-v1, 140 x 140, {NUM_ENVS} environments, A = {ACT_STEPS}, H = {HORIZON}"


class Side:
    """A sampler whose rollouts are timed."""

    def __init__(self, sampler: Any) -> None:
        self.sampler, self._iteration = sampler, 0
        self._policy: list[float] = []
        self._simulation: list[float] = []

    def work(self) -> float:
        """One rollout; the number of environment steps done."""
        _, stats = self.sampler.collect(self._iteration)
        self._iteration += 1
        self._policy.append(stats.seconds - stats.wait_seconds)
        self._simulation.append(stats.env_seconds)
        return float(stats.env_steps)

    @property
    def policy(self) -> float:
        """Seconds of a rollout outside the simulators: the median, without the first."""
        return statistics.median(self._policy[1:])

    @property
    def simulation(self) -> float:
        """Seconds of a rollout inside them, groups summed: the median, without the first."""
        return statistics.median(self._simulation[1:])


def run(settings: Settings) -> Iterator[Row]:
    """Both cases, on the same environments and with the same policy."""
    from benchmarks import ppo_parts
    from benchmarks.real_ratio_model import SIZES
    from rlft.run.assembly.envs import build_rollout_envs

    overrides = [
        "task=push_cube",
        "env.make_kwargs.visual_cell=null",
        f"env.num_envs={NUM_ENVS}",
        f"env.n_steps_rollout={DECISIONS * ACT_STEPS}",
        f"env.max_episode_len={ACT_STEPS * 10_000}",
        "env.episode_ends_on_success=false",
        "env.reset_at_iteration=false",
        f"act_steps={ACT_STEPS}",
        f"n_action_steps={HORIZON}",
        "train.batch_size=1",
        "sim.num_workers=2",
    ]
    both = {
        name: ppo_parts.settings([*overrides, f"sim.overlap={overlap}"], SIZES["wide"])
        for name, overlap in (("plain", "false"), ("overlap", "true"))
    }
    envs = {name: build_rollout_envs(cfg) for name, cfg in both.items()}
    try:
        objective = ppo_parts.make_objective(both["plain"], envs["plain"])
        make = partial(ppo_parts.make_sampler, both["plain"], envs["plain"], objective)
        ours = ppo_parts.make_sampler(both["overlap"], envs["overlap"], objective, policy_threads=1)
        cores = sorted(os.sched_getaffinity(0))
        pin(children(), cores[:1])
        pin([os.getpid()], cores[1:2])
        plain_one = Side(make(policy_threads=1))
        yield _a_core_each(Side(ours), plain_one, settings.pairs)
        pin([*children(), os.getpid()], cores)
        yield _shared_cores(Side(ours), Side(make(policy_threads=None)), plain_one.policy, settings.pairs)
    finally:
        for env in [*envs["plain"], *envs["overlap"]]:
            env.close()


def _shared_cores(ours: Side, plain: Side, policy_one: float, pairs: int) -> Row:
    rates = in_turns({"ours": ours.work, "plain": plain.work}, pairs)
    ideal = (plain.simulation + plain.policy) / max(2 * plain.simulation, policy_one)
    return Pairs(rates["ours"], rates["plain"]).row(
        NAME,
        f"{CASE}, both cores for either part",
        unit="steps/s",
        baseline="both workers at once, then the policy with all threads",
        goal=GOAL,
        explanation=(
            f"Without overlap both cores already work most of the time: simulation takes {plain.simulation:.2f} s on "
            f"two cores, then the policy {plain.policy:.2f} s with two threads ({policy_one:.2f} s with one). With "
            f"overlap each part has one core, and the longer one, {max(2 * plain.simulation, policy_one):.2f} s, is "
            f"the least there can be: {ideal:.2f} times the speed at best. On shared cores nothing can be gained but "
            "what the policy loses with two threads."
        ),
        facts={
            "simulation_seconds_two_cores": plain.simulation,
            "policy_seconds_two_threads": plain.policy,
            "policy_seconds_one_thread": policy_one,
            "ideal_ratio": ideal,
        },
    )


def _a_core_each(ours: Side, plain: Side, pairs: int) -> Row:
    rates = in_turns({"ours": ours.work, "plain": plain.work}, pairs)
    ideal = (plain.simulation + plain.policy) / max(plain.simulation, plain.policy)
    return Pairs(rates["ours"], rates["plain"]).row(
        NAME,
        f"{CASE}, a core for the simulators and one for the policy, as on separate devices",
        unit="steps/s",
        baseline="the same cores, one after another",
        goal=GOAL,
        explanation=(
            f"Simulation takes {plain.simulation:.2f} s and the policy {plain.policy:.2f} s: {ideal:.2f} at best. In "
            f"two groups, that is in batches half as large, the policy takes {ours.policy:.2f} s."
        ),
        facts={
            "simulation_seconds": plain.simulation,
            "policy_seconds": plain.policy,
            "policy_seconds_in_groups": ours.policy,
            "ideal_ratio": ideal,
        },
    )


def children() -> list[int]:
    """Process ids of this process's children: the simulators' workers."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text(encoding="ascii").split()]


def pin(processes: Sequence[int], cores: Sequence[int]) -> None:
    """Let every thread of the processes run on these cores only."""
    for process in processes:
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)
