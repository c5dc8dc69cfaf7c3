"""Collecting one rollout: the policy decides, the environments execute, ended ones start anew."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from rlft.objective.base import Objective
from rlft.placement import Placement, move, torch_threads
from rlft.policy.base import Prefix
from rlft.rollout.buffer import ChunkRows, Rollout
from rlft.rollout.group import Executed, RolloutGroup
from rlft.rollout.observations import indices, take_rows
from rlft.rollout.stats import EpisodeTally, RolloutStats
from rlft.rows import PolicyInput, TensorRows
from rlft.seeding import generator_for
from rlft.types import Observation, VecEnv


class Randomizer(Protocol):
    """Changes images before the policy sees them; see :class:`rlft.data.randomize.randomizer.ImageRandomizer`."""

    def __call__(self, obs: Observation, names: Sequence[tuple[int, ...]], moment: tuple[int, ...]) -> Observation:
        """The observation with changed images; ``names`` are the rows' episodes, ``moment`` the decision."""

    def scalars(self) -> dict[str, float]:
        """How much has changed since the last call."""


NUMBERS = ("rewards", "n_executed", "terminated", "truncated", "invalid")  # of a ChunkStep, which are stored


class RolloutSampler:
    """Fills a rollout with T decisions of E environments.

    Args:
        envs: the environments, in one or more groups; each group is one batch for the policy.
        num_decisions: T.
        store_prefix: keep the encoded prefix (frozen VLM); otherwise the model inputs.
        reset_each_rollout: start every rollout with new episodes.
        overlap: simulate a group while the policy decides for another one; the results are the same.
        policy_threads: CPU threads of the policy during a rollout; None: all.
        randomizer: changes the images that the policy decides on, and the rollout keeps; None: they stay as they are.
        even_batches: give the policy as many rows for final values as for decisions: a compiled network would be
            compiled again for every other number.
    """

    def __init__(
        self,
        envs: Sequence[VecEnv],
        objective: Objective,
        placement: Placement,
        *,
        seed: int,
        num_decisions: int,
        store_prefix: bool,
        reset_each_rollout: bool,
        overlap: bool = False,
        policy_threads: int | None = None,
        randomizer: Randomizer | None = None,
        even_batches: bool = False,
    ) -> None:
        self.objective, self.placement, self.policy_threads = objective, placement, policy_threads
        self.seed, self.T, self.E = seed, num_decisions, sum(env.spec.num_envs for env in envs)
        self.store_prefix, self.reset_each_rollout, self.randomizer = store_prefix, reset_each_rollout, randomizer
        self.even_batches = even_batches
        self._executor: ThreadPoolExecutor | None = None
        if overlap:
            threads = 1 if placement.sim_tensors else len(envs)  # a process's GPU simulations take turns in one context
            self._executor = ThreadPoolExecutor(threads, "simulator", initializer=placement.enter_simulator_thread)
        firsts = accumulate((env.spec.num_envs for env in envs), initial=0)
        self.groups = [RolloutGroup(*x, seed, self._executor, sharing=objective.group_size) for x in zip(envs, firsts)]
        self._tally = EpisodeTally(envs[0].spec, self.E)
        self._rollout = Rollout(self.T, self.E, placement.buffer, placement.policy)

    def close(self) -> None:
        """End the simulators' threads; may be called twice. The environments are closed by whoever built them."""
        if self._executor is not None:
            self._executor.shutdown()

    def collect(self, iteration: int) -> tuple[Rollout, RolloutStats]:
        """Run T decisions, whose random numbers the iteration names.

        Returns:
            the rollout, in the memory that every rollout of this sampler has: the next one overwrites it.

        Raises:
            NonFiniteActionError: the policy diverged.
        """
        started, rollout, stats = time.perf_counter(), self._rollout, RolloutStats()
        self._iteration, self._stats = iteration, stats
        rollout.reset()
        with torch_threads(self.policy_threads):
            self._fill()
        rollout.complete()
        if self.randomizer is not None:
            stats.randomization = self.randomizer.scalars()
        stats.seconds = time.perf_counter() - started
        return rollout, stats

    def _fill(self) -> None:
        if self.reset_each_rollout:
            self._tally.forget()
        try:
            for group in self.groups:
                group.begin(self._iteration, reset=self.reset_each_rollout)
            for t in range(self.T + 1):
                for group in self.groups:
                    if t > 0:
                        self._finish(group, t - 1)
                    if t < self.T:
                        self._decide(group, t)
        finally:
            for group in self.groups:  # an error here must not leave a simulator running there
                group.drain()

    def _decide(self, group: RolloutGroup, t: int) -> None:
        """Send a group its chunks, and store what was decided on and what the objective leaves of the decision."""
        objective, policy = self.objective, self.objective.actor.policy
        with self._stats.waiting():
            obs = group.observe()
        obs = self._seen(obs, group.episodes, t)
        inputs, prefix, draws, privileged = self._look(obs, "rollout-noise", t, group.ids)
        sampled = objective.sample(prefix, draws, privileged)
        chunk = sampled.chunk[:, : objective.actor.act_steps]
        actions = self.placement.to_sim(policy.actions_to_env(chunk))  # the only read of a decision
        group.send(actions)
        kept: dict[str, TensorRows] = {"prefix": prefix} if self.store_prefix else {"inputs": inputs}
        self._rollout.add(t, group.ids, trace=sampled.trace, **kept)
        self._stats.noise_stds.append(sampled.noise_std)

    def _seen(self, obs: Observation, episodes: Sequence[tuple[int, ...]], t: int) -> Observation:
        """What the policy sees of an observation, before the rollout's decision t."""
        return obs if self.randomizer is None else self.randomizer(obs, episodes, (self._iteration, t))

    def _finish(self, group: RolloutGroup, t: int) -> None:
        """Store what came of a group's decision t."""
        with self._stats.waiting():  # without overlap, the chunk runs here, when the decision's tensors are gone
            executed = group.receive()
        final_value = self._final_values(executed, t, group.ids) if self.objective.bootstraps else None
        numbers = move({name: getattr(executed.step, name) for name in NUMBERS}, self.placement.buffer)
        self._rollout.add(t, group.ids, chunks=ChunkRows(**numbers, final_value=final_value))
        self._tally.add(self._stats, group.ids, executed)

    def _look(
        self, obs: Observation, purpose: str, t: int, ids: Sequence[int]
    ) -> tuple[PolicyInput, Prefix, TensorRows, Tensor | None]:
        """Encode n observations, and draw; and their privileged state."""
        policy = self.objective.actor.policy
        inputs = policy.prepare(obs)
        with torch.no_grad():
            prefix = policy.encode(inputs)
        # Random numbers are named by (iteration, t, environment): another batching of environments draws the same.
        draws = self.objective.draws([generator_for(self.seed, purpose, self._iteration, t, i) for i in ids])
        return inputs, prefix, *self.placement.to_policy((draws, obs.privileged))

    def _final_values(self, executed: Executed, t: int, ids: Sequence[int]) -> Tensor:
        """V of the observation after the chunk, where it is read: truncated rows, and all open ones at the end."""
        step, episodes = executed.step, executed.episodes
        open_end = ~step.terminated if t == self.T - 1 else step.truncated & ~step.terminated
        rows = indices(open_end & ~step.invalid)
        values = torch.zeros(len(ids), device=self.placement.policy)
        if rows:
            chosen = [ids[row] for row in rows]
            obs = self._seen(take_rows(step.obs, rows), [episodes[row] for row in rows], t + 1)
            if self.even_batches:  # the first row again, as often as it takes
                missing = len(ids) - len(rows)
                obs, chosen = take_rows(obs, [*range(len(rows)), *[0] * missing]), chosen + chosen[:1] * missing

            def look() -> tuple[Prefix, TensorRows]:
                return self._look(obs, "final-value-noise", t, chosen)[1:3]

            found = self.objective.final_values(self.placement.to_policy(obs.privileged), look)
            values.index_copy_(0, self.placement.to_policy(torch.tensor(rows)), found[: len(rows)])
        return values
