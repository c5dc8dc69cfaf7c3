"""The only evaluation loop: a fixed list of episodes, each run to its end, on seeds and noise of its own.

Counting the episodes that happen to end inside a time window favours short ones, and short ones are the successful
ones. Here the list is fixed before the first step, and what happens in an episode depends on its name alone: not on
how many environments run side by side, nor on the order in which they end.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from rlft.errors import RlftError
from rlft.evaluate.protocol import Episode, EvalProtocol, list_episodes
from rlft.evaluate.result import EpisodeResult, EvalResult, summarise
from rlft.placement import Placement
from rlft.policy.actor import Actor
from rlft.policy.base import FlowPolicy
from rlft.policy.denoise import integrate_ode
from rlft.rollout.observations import indices, on_host, put_rows
from rlft.seeding import generator_for
from rlft.types import ChunkStep, ConfigurationSpace, Observation, VecEnv

MAX_TRIES = 3  # an episode is named by its seed: a simulator that fails in it again and again always will
RECORDED_AT_ONCE = 8  # episodes whose images are in memory together

type Act = Callable[[Observation, dict[int, _Running]], torch.Tensor]  # by environment: what runs there; actions


@dataclass
class _Running:
    """An episode in progress."""

    episode: Episode
    tries: int = 1
    decisions: int = 0
    steps: int = 0
    episode_return: float = 0.0

    def advance(self, step: ChunkStep, slot: int) -> None:
        self.decisions += 1
        self.steps += int(step.n_executed[slot])
        self.episode_return += float(step.rewards[slot].sum())

    def once_more(self) -> "_Running":
        if self.tries == MAX_TRIES:
            e = self.episode
            which = f"episode {e.index} (seed {e.seed}, configuration {e.configuration_id})"
            remedy = "its message stands above; leave it out with another eval.seed"
            raise RlftError(f"the simulator failed {MAX_TRIES} times in evaluation {which}; {remedy}")
        return _Running(self.episode, self.tries + 1)

    def result(self, step: ChunkStep, slot: int) -> EpisodeResult:
        return EpisodeResult(
            **vars(self.episode),
            success_once=bool(step.success[slot]),
            success_at_end=bool(step.success_now[slot]),
            steps=self.steps,
            episode_return=self.episode_return,
            metrics={name: float(values[slot]) for name, values in step.metrics.items()},
        )


class Evaluator:
    """Runs a protocol on environments of its own, not the training ones.

    Raises:
        ValueError: the environments are not those of the protocol.
    """

    def __init__(
        self, env: VecEnv, placement: Placement, protocol: EvalProtocol, numbered: ConfigurationSpace | None = None
    ) -> None:
        protocol.check(env.spec)
        self.env, self.placement, self.protocol = env, placement, protocol
        self.episodes = list_episodes(protocol, numbered)
        self._values = None if numbered is None else numbered.axes

    def run(
        self,
        policy: FlowPolicy,
        label: str,
        *,
        fingerprint: str | None = None,
        explore: Actor | None = None,
        on_progress: Callable[[int, int, int], None] = lambda done, total, successes: None,
    ) -> EvalResult:
        """Evaluate a policy on all episodes of the protocol.

        It acts deterministically but for its starting noise, which is named by the episode, or with ``explore``, the
        policy with its exploration noise, as in a rollout. Label and fingerprint of the weights go into the result;
        ``on_progress`` is called with (episodes done, episodes in all, successes).
        """
        started = time.perf_counter()
        act = partial(self._act, policy) if explore is None else partial(self._explore, explore)
        results, successes, restarted = list[EpisodeResult](), 0, 0
        for _, result in self._play(act, self.episodes, range(self.env.spec.num_envs)):
            if result is None:
                restarted += 1
                continue
            results.append(result)
            successes += result.success_once
            on_progress(len(results), len(self.episodes), successes)
        seconds = time.perf_counter() - started
        return summarise(
            label, self.protocol, results, seconds=seconds, restarted=restarted, policy=fingerprint, values=self._values
        )

    def replay(
        self, policy: FlowPolicy, chosen: Sequence[int], on_video: Callable[[EpisodeResult, np.ndarray], None]
    ) -> None:
        """Run some episodes again with an image per step: the same episodes, for they are named by their seeds.

        ``on_video`` is called with what this run of an episode gave, and its frames, uint8 ``[n, height, width, 3]``.
        """
        if not chosen:
            return
        slots = range(min(self.env.spec.num_envs, RECORDED_AT_ONCE, len(chosen)))
        self.env.record(list(slots))
        try:
            for slot, result in self._play(partial(self._act, policy), [self.episodes[i] for i in chosen], slots):
                frames = self.env.take_frames(slot)  # those of an episode that failed are forgotten
                if result is not None:
                    on_video(result, frames)
        finally:
            self.env.record([])

    def _play(self, act: Act, episodes: Sequence[Episode], slots: range) -> Iterator[tuple[int, EpisodeResult | None]]:
        """Run episodes in the environments ``slots``; an environment that is done takes the next one.

        Gives (environment, result) as they end; None for an episode that is run again because the simulator failed.
        """
        waiting = deque(episodes)
        running = {slot: _Running(waiting.popleft()) for slot in slots[: len(episodes)]}
        others = {i: _Running(self.episodes[0]) for i in range(self.env.spec.num_envs) if i not in running}
        obs = self._reset(dict(sorted((running | others).items())))  # those that have nothing to do start as well
        while running:
            actions = self.placement.to_sim(act(obs, running))
            step, _ = on_host(self.env.step_chunk(actions), actions)
            obs, again = step.obs, {}
            for slot in running:
                running[slot].advance(step, slot)
            for slot in [slot for slot in indices(step.ended) if slot in running]:
                episode = running.pop(slot)
                if bool(step.invalid[slot]):
                    yield slot, None
                    again[slot] = episode.once_more()
                    continue
                yield slot, episode.result(step, slot)
                if waiting:
                    again[slot] = _Running(waiting.popleft())
            if again:
                obs = put_rows(obs, list(again), self._reset(again))
                running |= again

    def _reset(self, starting: dict[int, _Running]) -> Observation:
        episodes = [running.episode for running in starting.values()]
        ids = [e.configuration_id for e in episodes if e.configuration_id is not None]
        return self.env.reset(list(starting), [e.seed for e in episodes], ids or None)

    def _act(self, policy: FlowPolicy, obs: Observation, running: dict[int, _Running]) -> torch.Tensor:
        """Actions ``[E, A, d]``; the noise of a decision is named by (episode, decision), waiting rows get zeros."""
        noise = self._noise("eval-noise", running, policy.horizon, policy.action_width)
        with torch.no_grad():
            prefix = policy.encode(policy.prepare(obs))
            chunk = integrate_ode(policy, prefix, self.placement.to_policy(noise), self.protocol.num_steps)
            return policy.actions_to_env(chunk[:, : self.protocol.act_steps])

    def _explore(self, actor: Actor, obs: Observation, running: dict[int, _Running]) -> torch.Tensor:
        """As :meth:`_act`, but drawn as in a rollout; a single-step sampler draws its steps in turn."""
        policy, steps = actor.policy, actor.schedule.num_steps
        noise = self._noise("probe-noise", running, steps + 1, policy.horizon, policy.action_width)
        stochastic_step = torch.zeros(len(noise), dtype=torch.int64)
        for slot, now in running.items():
            stochastic_step[slot] = (now.episode.index + now.decisions) % steps
        with torch.no_grad():
            prefix = policy.encode(policy.prepare(obs))
            actions = actor.sample(prefix, *self.placement.to_policy((noise, stochastic_step))).actions
            return policy.actions_to_env(actions[:, : actor.act_steps])

    def _noise(self, purpose: str, running: dict[int, _Running], *shape: int) -> torch.Tensor:
        noise = torch.zeros(self.env.spec.num_envs, *shape)
        for slot, now in running.items():
            generator = generator_for(self.protocol.seed, purpose, now.episode.index, now.decisions)
            noise[slot] = torch.randn(shape, generator=generator)
        return noise
