"""Collecting one rollout: the policy decides, the environments execute, ended ones start anew."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch

from rlft.placement import Placement, torch_threads
from rlft.policy.actor_critic import ActorCritic, PolicySample
from rlft.policy.base import Prefix
from rlft.rollout.buffer import RolloutBuffer
from rlft.rollout.group import Executed, RolloutGroup
from rlft.rollout.observations import indices, take_rows
from rlft.rollout.outcome import Outcome
from rlft.rollout.stats import EpisodeTally, RolloutStats
from rlft.rows import PolicyInput
from rlft.seeding import generator_for
from rlft.types import Observation, VecEnv


class Randomizer(Protocol):
    """Changes pictures before the policy sees them; see :class:`rlft.data.randomize.randomizer.ImageRandomizer`."""

    def __call__(self, obs: Observation, names: Sequence[tuple[int, ...]], moment: tuple[int, ...]) -> Observation:
        """The observation with changed pictures; ``names`` are the rows' episodes, ``moment`` the decision."""
        ...

    def scalars(self) -> dict[str, float]:
        """How much has changed since the last call."""
        ...


@dataclass(frozen=True)
class Decision:
    """What the policy decided for a group, kept until its outcome is known.

    Attributes:
        inputs: model inputs, n rows.
        prefix: the encoded observations.
        privileged: float32 ``[n, P]`` or None.
        sample: the drawn chains.
        episodes: of which episode each row is.
    """

    inputs: PolicyInput
    prefix: Prefix
    privileged: torch.Tensor | None
    sample: PolicySample
    episodes: Sequence[tuple[int, ...]]


class RolloutSampler:
    """Fills a buffer with T decisions of E environments.

    Args:
        envs: the environments, in one or more groups; each group is one batch for the policy.
        model: policy, noise and critic.
        placement: moves tensors between the devices.
        seed: the run's seed.
        num_decisions: T.
        store_prefix: keep the encoded prefix (frozen VLM); otherwise the model inputs.
        reset_each_rollout: start every rollout with new episodes.
        overlap: simulate a group while the policy decides for another one; the results are the same.
        policy_threads: CPU threads of the policy during a rollout; None: all.
        randomizer: changes the pictures that the policy decides on, and the buffer keeps; None: they stay as they are.
        even_batches: give the policy as many rows for final values as for decisions: a compiled network would be
            compiled again for every other number.
    """

    def __init__(
        self,
        envs: Sequence[VecEnv],
        model: ActorCritic,
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
        self.model, self.placement, self.policy_threads = model, placement, policy_threads
        self.seed, self.T, self.E = seed, num_decisions, sum(env.spec.num_envs for env in envs)
        self.store_prefix, self.reset_each_rollout, self.randomizer = store_prefix, reset_each_rollout, randomizer
        self.even_batches = even_batches
        self._executor: ThreadPoolExecutor | None = None
        if overlap:
            threads = placement.sim_threads(len(envs))
            self._executor = ThreadPoolExecutor(threads, "simulator", initializer=placement.enter_simulator_thread)
        firsts = [sum(env.spec.num_envs for env in envs[:i]) for i in range(len(envs))]
        self.groups = [RolloutGroup(env, first, seed, self._executor) for env, first in zip(envs, firsts)]
        self._tally = EpisodeTally(envs[0].spec, self.E)
        self._buffer = RolloutBuffer(self.T, self.E, placement.buffer, placement.policy)

    def close(self) -> None:
        """End the simulators' threads; may be called twice. The environments are closed by whoever built them."""
        if self._executor is not None:
            self._executor.shutdown()

    def collect(self, iteration: int) -> tuple[RolloutBuffer, RolloutStats]:
        """Run T decisions.

        Args:
            iteration: names the random numbers of this rollout.

        Returns:
            the rollout, in the memory that every rollout of this sampler has: the next one overwrites it.

        Raises:
            NonFiniteActionError: the policy diverged.
        """
        stats, started, buffer = RolloutStats(), time.perf_counter(), self._buffer
        buffer.reset()
        with torch_threads(self.policy_threads):
            self._fill(buffer, stats, iteration)
        buffer.complete()
        if self.randomizer is not None:
            stats.randomization = self.randomizer.scalars()
        stats.seconds = time.perf_counter() - started
        return buffer, stats

    def _fill(self, buffer: RolloutBuffer, stats: RolloutStats, iteration: int) -> None:
        try:
            self._begin(iteration)
            decided: dict[RolloutGroup, Decision] = {}
            for t in range(self.T):
                for group in self.groups:
                    if t > 0:
                        self._finish(buffer, stats, group, decided[group], iteration, t - 1)
                    decided[group] = self._decide_and_send(stats, group, iteration, t)
            for group in self.groups:
                self._finish(buffer, stats, group, decided[group], iteration, self.T - 1)
        finally:
            for group in self.groups:  # an error here must not leave a simulator running there
                group.drain()

    def _begin(self, iteration: int) -> None:
        if self.reset_each_rollout:
            self._tally.forget()
        for group in self.groups:
            group.begin(iteration, reset=self.reset_each_rollout)

    def _decide_and_send(self, stats: RolloutStats, group: RolloutGroup, iteration: int, t: int) -> Decision:
        waited = time.perf_counter()
        obs = group.observe()
        stats.wait_seconds += time.perf_counter() - waited
        episodes = list(group.episodes)
        obs = self._seen(obs, episodes, iteration, t)
        inputs, prefix, privileged, sample = self._decide(obs, iteration, t, group.ids)
        chunk = sample.actions[:, : self.model.act_steps]
        actions = self.placement.to_sim(self.model.policy.actions_to_env(chunk))  # the only read of a decision
        waited = time.perf_counter()
        group.send(actions)
        stats.wait_seconds += time.perf_counter() - waited  # without overlap, the chunk runs here
        return Decision(inputs, prefix, privileged, sample, episodes)

    def _seen(self, obs: Observation, episodes: Sequence[tuple[int, ...]], iteration: int, t: int) -> Observation:
        """What the policy sees of an observation, before the rollout's decision t."""
        return obs if self.randomizer is None else self.randomizer(obs, episodes, (iteration, t))

    def _finish(
        self, buffer: RolloutBuffer, stats: RolloutStats, group: RolloutGroup, made: Decision, iteration: int, t: int
    ) -> None:
        waited = time.perf_counter()
        executed = group.receive()
        stats.wait_seconds += time.perf_counter() - waited
        stats.env_seconds += executed.seconds
        final_value = self._final_values(executed, iteration, t, group.ids, made.episodes)
        self._store(buffer, t, group.ids, made, executed.outcome, final_value)
        stats.noise_stds.append(made.sample.mean_std)
        self._tally.add(stats, group.ids, executed.outcome)

    def _decide(
        self, obs: Observation, iteration: int, t: int, ids: Sequence[int]
    ) -> tuple[PolicyInput, Prefix, torch.Tensor | None, PolicySample]:
        """One decision per row."""
        inputs, prefix, (noise, steps, privileged) = self._look(obs, "rollout-noise", iteration, t, ids)
        return inputs, prefix, privileged, self.model.sample(prefix, noise, steps, privileged)

    def _value(self, obs: Observation, iteration: int, t: int, ids: Sequence[int]) -> torch.Tensor:
        """Value of n observations that nothing is decided on, float32 ``[n]``."""
        if not self.model.critic.feature_dim:  # the network need not look
            with torch.no_grad():
                return self.model.critic(None, self.placement.to_policy(obs.privileged))
        _, prefix, draws = self._look(obs, "final-value-noise", iteration, t, ids)
        return self.model.value(prefix, *draws)

    def _look(
        self, obs: Observation, purpose: str, iteration: int, t: int, ids: Sequence[int]
    ) -> tuple[PolicyInput, Prefix, tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        """Encode n observations, and draw: noise, the step of a single-step sampler; and the privileged state.

        The random numbers are named by (iteration, t, environment), not by the batch.
        """
        policy, schedule = self.model.policy, self.model.schedule
        shape = (schedule.num_steps + 1, policy.horizon, policy.action_width)
        noise, drawn = [], []
        for i in ids:
            generator = generator_for(self.seed, purpose, iteration, t, i)
            noise.append(torch.randn(shape, generator=generator))
            drawn.append(torch.randint(schedule.num_steps, (), generator=generator))
        inputs = policy.prepare(obs)
        with torch.no_grad():
            prefix = policy.encode(inputs)
        return inputs, prefix, self.placement.to_policy((torch.stack(noise), torch.stack(drawn), obs.privileged))

    def _final_values(
        self, executed: Executed, iteration: int, t: int, ids: Sequence[int], episodes: Sequence[tuple[int, ...]]
    ) -> torch.Tensor:
        """V of the observation after the chunk, where GAE reads it: truncated rows, and all open ones at the end."""
        outcome = executed.outcome
        open_end = ~outcome.terminated if t == self.T - 1 else outcome.truncated & ~outcome.terminated
        rows = indices(open_end & ~outcome.invalid)
        values = torch.zeros(len(ids), device=self.placement.policy)
        if rows:
            chosen = [ids[row] for row in rows]
            obs = self._seen(take_rows(executed.obs, rows), [episodes[row] for row in rows], iteration, t + 1)
            if self.even_batches:
                missing = len(ids) - len(rows)
                obs, chosen = take_rows(obs, [*range(len(rows)), *[0] * missing]), chosen + chosen[:1] * missing
            found = self._value(obs, iteration, t, chosen)[: len(rows)]
            values.index_copy_(0, self.placement.to_policy(torch.tensor(rows)), found)
        return values

    def _store(
        self,
        buffer: RolloutBuffer,
        t: int,
        ids: range,
        made: Decision,
        outcome: Outcome,
        final_value: torch.Tensor,
    ) -> None:
        n_executed, sample = self.placement.to_policy(outcome.n_executed), made.sample
        buffer.add(
            t,
            rows=ids,
            prefix=made.prefix if self.store_prefix else None,
            inputs=None if self.store_prefix else made.inputs,
            privileged=made.privileged,
            chain=sample.chain,
            drawn_step=sample.drawn_step,
            n_executed=n_executed,
            log_prob=sample.log_prob.joint(n_executed),
            value=sample.value,
            rewards=self.placement.to_buffer(outcome.rewards),
            terminated=self.placement.to_buffer(outcome.terminated),
            truncated=self.placement.to_buffer(outcome.truncated),
            invalid=self.placement.to_buffer(outcome.invalid),
            final_value=final_value,
        )
