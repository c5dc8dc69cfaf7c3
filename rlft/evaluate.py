"""The only evaluation loop: a fixed number of episodes per environment, on seeds and noise of its own.

Counting the episodes that happen to end inside a time window favours short ones, and short ones are the successful
ones. So every environment runs the same number of episodes, each to its end, and an environment that is done waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from rlft.metrics import wilson_interval
from rlft.placement import Placement
from rlft.policy.base import FlowPolicy
from rlft.policy.denoise import integrate_ode
from rlft.rollout.observations import indices, put_rows
from rlft.seeding import generator_for, seed_for
from rlft.types import Observation, VecEnv


@dataclass(frozen=True)
class EpisodeResult:
    """One evaluation episode. ``index`` names it: the same index and seed in every evaluation of a protocol."""

    index: int
    seed: int
    success: bool
    success_at_end: bool
    steps: int
    episode_return: float


@dataclass
class EvalResult:
    """A finished evaluation.

    Attributes:
        label: which policy this is.
        env_id: the task.
        max_episode_len: the time limit, environment steps.
        seed: the protocol's first seed.
        num_steps: denoise steps (deterministic ODE).
        act_steps: executed steps per decision.
        episodes: how many were run.
        successes: episodes with success at any step.
        success: the rate of these.
        ci95: its Wilson interval.
        success_at_end: rate of episodes that were successful at their last step.
        mean_steps: mean episode length, environment steps.
        mean_return: mean undiscounted return.
        seconds: wall time.
        restarted: episodes run again because the simulator failed in them.
        per_episode: every episode, by index.
    """

    label: str
    env_id: str
    max_episode_len: int
    seed: int
    num_steps: int
    act_steps: int
    episodes: int
    successes: int
    success: float
    ci95: tuple[float, float]
    success_at_end: float
    mean_steps: float
    mean_return: float
    seconds: float
    restarted: int
    per_episode: list[EpisodeResult] = field(default_factory=list)

    def to_dict(self) -> dict:
        """Plain data for eval_<label>.json."""
        return asdict(self)


@dataclass(frozen=True)
class Protocol:
    """What has to be equal for two evaluations to be comparable.

    Attributes:
        episodes: in all; a multiple of the environments.
        seed: the first seed.
        num_steps: denoise steps.
        act_steps: A.
        num_videos: the first so many episodes are recorded.
    """

    episodes: int
    seed: int
    num_steps: int
    act_steps: int
    num_videos: int = 0


class Evaluator:
    """Runs a protocol on environments of its own.

    Args:
        env: the environments; not the training ones.
        placement: moves tensors between the devices.
        protocol: what to run.
    """

    def __init__(self, env: VecEnv, placement: Placement, protocol: Protocol) -> None:
        if protocol.episodes % env.spec.num_envs:
            raise ValueError(
                f"eval.episodes={protocol.episodes} is no multiple of eval.num_envs={env.spec.num_envs}: every "
                "environment has to run the same number of episodes"
            )
        self.env, self.placement, self.protocol = env, placement, protocol

    def run(
        self,
        policy: FlowPolicy,
        label: str,
        *,
        on_progress: Callable[[int, int, int], None] = lambda done, total, successes: None,
        on_video: Callable[[int, bool, np.ndarray], None] | None = None,
    ) -> EvalResult:
        """Evaluate a policy.

        Args:
            policy: acts deterministically but for its starting noise, which is named by the episode.
            label: goes into the result.
            on_progress: called with (episodes done, episodes in all, successes).
            on_video: called with (episode index, success, frames uint8 ``[n, h, w, 3]``) for recorded episodes.
        """
        started, protocol, num_envs = time.perf_counter(), self.protocol, self.env.spec.num_envs
        recorded = set(range(min(protocol.num_videos, num_envs))) if on_video else set()
        running = {i: _Running(index=i) for i in range(num_envs)}
        results: list[EpisodeResult] = []
        restarted = 0
        self.env.record(sorted(recorded))
        obs = self._reset(list(running.values()))
        while running:
            actions = self._act(policy, obs, running)
            step = self.env.step_chunk(self.placement.to_sim(actions))
            obs = step.obs
            n, rewards = (
                np.asarray(torch.as_tensor(step.n_executed).cpu()),
                np.asarray(torch.as_tensor(step.rewards).cpu()),
            )
            again = []
            for i in [i for i in indices(step.ended) if i in running]:
                episode = running[i]
                if bool(step.invalid[i]):
                    restarted += 1
                    if i in recorded:
                        self.env.take_frames(i)
                    again.append(_Running(index=episode.index))
                    continue
                results.append(
                    episode.finish(n[i], rewards[i], bool(step.success[i]), bool(step.success_now[i]), protocol.seed)
                )
                if i in recorded and on_video is not None:
                    on_video(episode.index, results[-1].success, self.env.take_frames(i))
                    if episode.index + num_envs >= protocol.num_videos:  # a picture per step is dear
                        recorded.remove(i)
                        self.env.record(sorted(recorded))
                if episode.index + num_envs < protocol.episodes:
                    again.append(_Running(index=episode.index + num_envs))
                else:
                    del running[i]
            for i in set(running) - {e.index % num_envs for e in again}:
                running[i].advance(n[i], rewards[i])
            if again:
                running |= {e.index % num_envs: e for e in again}
                obs = put_rows(obs, [e.index % num_envs for e in again], self._reset(again))
            on_progress(len(results), protocol.episodes, sum(r.success for r in results))
        return self._summary(label, results, restarted, time.perf_counter() - started)

    def _reset(self, episodes: Sequence[_Running]) -> Observation:
        num_envs = self.env.spec.num_envs
        return self.env.reset(
            [e.index % num_envs for e in episodes], [e.env_seed(self.protocol.seed) for e in episodes]
        )

    def _act(self, policy: FlowPolicy, obs: Observation, running: dict[int, _Running]) -> torch.Tensor:
        """Actions ``[E, A, d]``; the noise of a decision is named by (episode, decision), waiting rows get zeros."""
        shape = (policy.horizon, policy.action_width)
        noise = torch.zeros(self.env.spec.num_envs, *shape)
        for i, episode in running.items():
            generator = generator_for(self.protocol.seed, "eval-noise", episode.index, episode.decisions)
            noise[i] = torch.randn(shape, generator=generator)
        with torch.no_grad():
            prefix = policy.encode(policy.prepare(obs))
            chunk = integrate_ode(policy, prefix, self.placement.to_policy(noise), self.protocol.num_steps)
            return policy.actions_to_env(chunk[:, : self.protocol.act_steps])

    def _summary(self, label: str, results: list[EpisodeResult], restarted: int, seconds: float) -> EvalResult:
        successes, total = sum(r.success for r in results), len(results)
        return EvalResult(
            label=label,
            env_id=self.env.spec.env_id,
            max_episode_len=self.env.spec.max_episode_steps,
            seed=self.protocol.seed,
            num_steps=self.protocol.num_steps,
            act_steps=self.protocol.act_steps,
            episodes=total,
            successes=successes,
            success=successes / total,
            ci95=wilson_interval(successes, total),
            success_at_end=sum(r.success_at_end for r in results) / total,
            mean_steps=float(np.mean([r.steps for r in results])),
            mean_return=float(np.mean([r.episode_return for r in results])),
            seconds=seconds,
            restarted=restarted,
            per_episode=sorted(results, key=lambda r: r.index),
        )


@dataclass
class _Running:
    """An episode in progress."""

    index: int
    decisions: int = 0
    steps: int = 0
    episode_return: float = 0.0

    def env_seed(self, seed: int) -> int:
        return seed_for(seed, "eval-episode", self.index)

    def advance(self, n: int, rewards: np.ndarray) -> None:
        self.decisions += 1
        self.steps += int(n)
        self.episode_return += float(rewards.sum())

    def finish(self, n: int, rewards: np.ndarray, success: bool, success_now: bool, seed: int) -> EpisodeResult:
        self.advance(n, rewards)
        return EpisodeResult(self.index, self.env_seed(seed), success, success_now, self.steps, self.episode_return)
