"""Collecting one rollout: the policy decides, the environments execute, ended ones start anew."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from rlft.objective.base import Objective, Sampled
from rlft.placement import Placement, torch_threads
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


@dataclass(frozen=True)
class Decision:
    """What was decided for a group, kept until its outcome is known."""

    kept: dict[str, TensorRows]  # what the rollout keeps of the observations: `prefix` or `inputs`
    sampled: Sampled  # the chunks, and what the objective leaves of them
    episodes: Sequence[tuple[int, ...]]  # of which episode each row is


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
            threads = placement.sim_threads(len(envs))
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
        stats, started, rollout = RolloutStats(), time.perf_counter(), self._rollout
        rollout.reset()
        with torch_threads(self.policy_threads):
            self._fill(rollout, stats, iteration)
        rollout.complete()
        if self.randomizer is not None:
            stats.randomization = self.randomizer.scalars()
        stats.seconds = time.perf_counter() - started
        return rollout, stats

    def _fill(self, rollout: Rollout, stats: RolloutStats, iteration: int) -> None:
        if self.reset_each_rollout:
            self._tally.forget()
        try:
            for group in self.groups:
                group.begin(iteration, reset=self.reset_each_rollout)
            decided: dict[RolloutGroup, Decision] = {}
            for t in range(self.T):
                for group in self.groups:
                    if t > 0:
                        self._finish(rollout, stats, group, decided[group], iteration, t - 1)
                    decided[group] = self._decide_and_send(stats, group, iteration, t)
            for group in self.groups:
                self._finish(rollout, stats, group, decided[group], iteration, self.T - 1)
        finally:
            for group in self.groups:  # an error here must not leave a simulator running there
                group.drain()

    def _decide_and_send(self, stats: RolloutStats, group: RolloutGroup, iteration: int, t: int) -> Decision:
        waited = time.perf_counter()
        obs = group.observe()
        stats.wait_seconds += time.perf_counter() - waited
        episodes = list(group.episodes)
        obs = self._seen(obs, episodes, iteration, t)
        inputs, prefix, draws, privileged = self._look(obs, "rollout-noise", iteration, t, group.ids)
        sampled, actor = self.objective.sample(prefix, draws, privileged), self.objective.actor
        chunk = sampled.chunk[:, : actor.act_steps]
        actions = self.placement.to_sim(actor.policy.actions_to_env(chunk))  # the only read of a decision
        waited = time.perf_counter()
        group.send(actions)
        stats.wait_seconds += time.perf_counter() - waited  # without overlap, the chunk runs here
        # [:] leaves what the denoise steps derived from the prefix to be freed while the chunk runs.
        kept: dict[str, TensorRows] = {"prefix": prefix[:]} if self.store_prefix else {"inputs": inputs}
        return Decision(kept, sampled, episodes)

    def _seen(self, obs: Observation, episodes: Sequence[tuple[int, ...]], iteration: int, t: int) -> Observation:
        """What the policy sees of an observation, before the rollout's decision t."""
        return obs if self.randomizer is None else self.randomizer(obs, episodes, (iteration, t))

    def _finish(
        self, rollout: Rollout, stats: RolloutStats, group: RolloutGroup, made: Decision, iteration: int, t: int
    ) -> None:
        waited = time.perf_counter()
        executed = group.receive()
        stats.wait_seconds += time.perf_counter() - waited
        stats.env_seconds += executed.seconds
        outcome, final_value = executed.outcome, None
        if self.objective.bootstraps:
            final_value = self._final_values(executed, iteration, t, group.ids, made.episodes)
        names = ("rewards", "n_executed", "terminated", "truncated", "invalid")
        columns = self.placement.to_buffer({name: getattr(outcome, name) for name in names})
        chunks = ChunkRows(**columns, final_value=final_value)
        rollout.add(t, group.ids, trace=made.sampled.trace, chunks=chunks, **made.kept)
        stats.noise_stds.append(made.sampled.noise_std)
        self._tally.add(stats, group.ids, outcome)

    def _look(
        self, obs: Observation, purpose: str, iteration: int, t: int, ids: Sequence[int]
    ) -> tuple[PolicyInput, Prefix, TensorRows, Tensor | None]:
        """Encode n observations, and draw; and their privileged state."""
        policy = self.objective.actor.policy
        inputs = policy.prepare(obs)
        with torch.no_grad():
            prefix = policy.encode(inputs)
        # Random numbers are named by (iteration, t, environment): another batching of environments draws the same.
        draws = self.objective.draws([generator_for(self.seed, purpose, iteration, t, i) for i in ids])
        return inputs, prefix, *self.placement.to_policy((draws, obs.privileged))

    def _final_values(
        self, executed: Executed, iteration: int, t: int, ids: Sequence[int], episodes: Sequence[tuple[int, ...]]
    ) -> Tensor:
        """V of the observation after the chunk, where it is read: truncated rows, and all open ones at the end."""
        outcome = executed.outcome
        open_end = ~outcome.terminated if t == self.T - 1 else outcome.truncated & ~outcome.terminated
        rows = indices(open_end & ~outcome.invalid)
        values = torch.zeros(len(ids), device=self.placement.policy)
        if rows:
            chosen = [ids[row] for row in rows]
            obs = self._seen(take_rows(executed.obs, rows), [episodes[row] for row in rows], iteration, t + 1)
            if self.even_batches:  # the first row again, as often as it takes
                missing = len(ids) - len(rows)
                obs, chosen = take_rows(obs, [*range(len(rows)), *[0] * missing]), chosen + chosen[:1] * missing

            def look() -> tuple[Prefix, TensorRows]:
                return self._look(obs, "final-value-noise", iteration, t, chosen)[1:3]

            found = self.objective.final_values(self.placement.to_policy(obs.privileged), look)
            values.index_copy_(0, self.placement.to_policy(torch.tensor(rows)), found[: len(rows)])
        return values
