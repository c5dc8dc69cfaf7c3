"""Collecting one rollout: the policy decides, the environments execute, ended ones start anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from rlft.errors import RlftError
from rlft.placement import Placement
from rlft.policy.actor_critic import ActorCritic, PolicySample
from rlft.policy.base import PolicyInput, Prefix
from rlft.policy.denoise import reduce_log_prob
from rlft.rollout.buffer import RolloutBuffer
from rlft.rollout.observations import indices, put_rows, take_rows
from rlft.seeding import generator_for, seed_for
from rlft.types import ChunkStep, Observation, VecEnv


class NonFiniteActionError(RlftError):
    """The policy produced NaN or infinite actions; nothing was sent to the simulator."""

    exit_code = 3


@dataclass
class RolloutStats:
    """What happened during one rollout.

    Attributes:
        env_steps: executed environment steps, all environments.
        episode_returns: undiscounted returns of the episodes that ended.
        episode_lengths: their lengths, environment steps.
        episode_successes: whether they succeeded.
        invalid: chunks lost to simulator failures.
        clipped_actions: share of executed action numbers outside the controller's bounds.
        noise_std: mean std of the exploration, model units.
        env_seconds: time inside the simulator.
        policy_seconds: time inside the policy.
    """

    env_steps: int = 0
    episode_returns: list[float] = field(default_factory=list)
    episode_lengths: list[int] = field(default_factory=list)
    episode_successes: list[bool] = field(default_factory=list)
    invalid: int = 0
    clipped_actions: float = 0.0
    noise_std: float = 0.0
    env_seconds: float = 0.0
    policy_seconds: float = 0.0

    def scalars(self) -> dict[str, float]:
        """Means for the log. Success here is of episodes that ended inside the window: for trends, not for claims."""
        ended = len(self.episode_returns)
        means = {
            "rollout/success": float(np.mean(self.episode_successes)) if ended else float("nan"),
            "rollout/return": float(np.mean(self.episode_returns)) if ended else float("nan"),
            "rollout/episode_length": float(np.mean(self.episode_lengths)) if ended else float("nan"),
        }
        seconds = self.env_seconds + self.policy_seconds
        return means | {
            "rollout/episodes": float(ended),
            "rollout/env_steps": float(self.env_steps),
            "rollout/invalid_chunks": float(self.invalid),
            "rollout/clipped_actions": self.clipped_actions,
            "rollout/noise_std": self.noise_std,
            "time/env_seconds": self.env_seconds,
            "time/policy_seconds": self.policy_seconds,
            "throughput/env_steps_per_s": self.env_steps / max(seconds, 1e-9),
        }


class RolloutSampler:
    """Fills a buffer with T decisions of E environments.

    Args:
        env: the environments.
        model: policy, noise and critic.
        placement: moves tensors between the devices.
        seed: the run's seed.
        num_decisions: T.
        store_prefix: keep the encoded prefix (frozen VLM); otherwise the model inputs.
        reset_each_rollout: start every rollout with new episodes.
    """

    def __init__(
        self,
        env: VecEnv,
        model: ActorCritic,
        placement: Placement,
        *,
        seed: int,
        num_decisions: int,
        store_prefix: bool,
        reset_each_rollout: bool,
    ) -> None:
        self.env, self.model, self.placement = env, model, placement
        self.seed, self.T, self.E = seed, num_decisions, env.spec.num_envs
        self.store_prefix, self.reset_each_rollout = store_prefix, reset_each_rollout
        self._low, self._high = np.array(env.spec.action_low), np.array(env.spec.action_high)
        self._margin = 0.01 * (self._high - self._low)  # a bound that is missed by a hair is no clipping
        self._obs: Observation | None = None
        self._episode = np.zeros(self.E, dtype=np.int64)
        self._return, self._length = np.zeros(self.E), np.zeros(self.E, dtype=np.int64)

    def collect(
        self, iteration: int, on_decision: Callable[[int], None] = lambda t: None
    ) -> tuple[RolloutBuffer, RolloutStats]:
        """Run T decisions.

        Args:
            iteration: names the random numbers of this rollout.
            on_decision: called after each decision with the number done.

        Raises:
            NonFiniteActionError: the policy diverged.
        """
        stats = RolloutStats()
        buffer = RolloutBuffer(self.T, self.E, self.placement.buffer, self.placement.policy)
        obs = self._begin(iteration)
        for t in range(self.T):
            started = time.perf_counter()
            inputs, prefix, privileged, sample = self._decide(obs, iteration, t, range(self.E))
            actions = self._to_env(sample)
            decided = time.perf_counter()
            step = self.env.step_chunk(self.placement.to_sim(actions))
            executed = time.perf_counter()
            final_value = self._final_values(step, iteration, t)
            self._store(buffer, t, inputs, prefix, privileged, sample, step, final_value)
            self._account(stats, actions, sample, step)
            stats.policy_seconds += decided - started + time.perf_counter() - executed
            obs = self._restart_ended(step, iteration)
            stats.env_seconds += executed - decided
            on_decision(t + 1)
        self._obs = obs
        stats.clipped_actions /= self.T
        stats.noise_std /= self.T
        return buffer, stats

    def _begin(self, iteration: int) -> Observation:
        if self._obs is not None and not self.reset_each_rollout:
            self._episode[:] = 0
            return self._obs
        self._episode[:] = 0
        return self._reset(list(range(self.E)), iteration)

    def _reset(self, env_ids: list[int], iteration: int) -> Observation:
        seeds = [seed_for(self.seed, "rollout-episode", iteration, i, int(self._episode[i])) for i in env_ids]
        self._episode[env_ids] += 1
        self._return[env_ids], self._length[env_ids] = 0.0, 0
        return self.env.reset(env_ids, seeds)

    def _restart_ended(self, step: ChunkStep, iteration: int) -> Observation:
        ended = indices(step.ended)
        return put_rows(step.obs, ended, self._reset(ended, iteration)) if ended else step.obs

    def _decide(
        self, obs: Observation, iteration: int, t: int, env_ids: range | list[int], purpose: str = "rollout-noise"
    ) -> tuple[PolicyInput, Prefix, torch.Tensor | None, PolicySample]:
        """One decision per row; the random numbers are named by (iteration, t, environment), not by the batch."""
        policy, schedule = self.model.policy, self.model.schedule
        shape = (schedule.num_steps + 1, policy.horizon, policy.action_width)
        noise, drawn = [], []
        for i in env_ids:
            generator = generator_for(self.seed, purpose, iteration, t, i)
            noise.append(torch.randn(shape, generator=generator))
            drawn.append(torch.randint(schedule.num_steps, (), generator=generator))
        inputs = policy.prepare(obs)
        with torch.no_grad():
            prefix = policy.encode(inputs)
        to_policy = self.placement.to_policy
        privileged = None if obs.privileged is None else to_policy(obs.privileged)
        sample = self.model.sample(prefix, to_policy(torch.stack(noise)), to_policy(torch.stack(drawn)), privileged)
        return inputs, prefix, privileged, sample

    def _to_env(self, sample: PolicySample) -> torch.Tensor:
        """The executed part of the drawn chunk in controller units, ``[E, A, d]``."""
        actions = self.model.policy.actions_to_env(sample.actions[:, : self.model.act_steps])
        finite = torch.isfinite(actions).flatten(1).all(1)
        if not bool(finite.all()):
            rows = (~finite).nonzero().flatten().tolist()
            raise NonFiniteActionError(
                f"the policy produced non-finite actions for environments {rows}; the weights have diverged: "
                "resume an earlier checkpoint with a lower train.actor_optimizer.lr"
            )
        return actions

    def _final_values(self, step: ChunkStep, iteration: int, t: int) -> torch.Tensor:
        """V of the observation after the chunk, where GAE reads it: truncated rows, and all open ones at the end."""
        open_end = ~step.terminated if t == self.T - 1 else step.truncated & ~step.terminated
        rows = indices(open_end & ~step.invalid)
        values = torch.zeros(self.E, device=self.placement.policy)
        if rows:
            _, _, _, sample = self._decide(take_rows(step.obs, rows), iteration, t, rows, purpose="final-value-noise")
            values[rows] = sample.value
        return values

    def _store(
        self,
        buffer: RolloutBuffer,
        t: int,
        inputs: PolicyInput,
        prefix: Prefix,
        privileged: torch.Tensor | None,
        sample: PolicySample,
        step: ChunkStep,
        final_value: torch.Tensor,
    ) -> None:
        n_executed = self.placement.to_policy(step.n_executed)
        buffer.add(
            t,
            prefix=prefix if self.store_prefix else None,
            inputs=None if self.store_prefix else inputs,
            privileged=privileged,
            chain=sample.chain,
            drawn_step=sample.drawn_step,
            n_executed=n_executed,
            log_prob=reduce_log_prob(sample.log_prob, n_executed),
            value=sample.value,
            rewards=self.placement.to_buffer(step.rewards),
            terminated=self.placement.to_buffer(step.terminated),
            truncated=self.placement.to_buffer(step.truncated),
            invalid=self.placement.to_buffer(step.invalid),
            final_value=final_value,
        )

    def _account(self, stats: RolloutStats, actions: torch.Tensor, sample: PolicySample, step: ChunkStep) -> None:
        n = np.asarray(torch.as_tensor(step.n_executed).cpu())
        sent = actions.float().cpu().numpy()
        executed = np.arange(sent.shape[1])[None, :] < n[:, None]
        outside = ((sent < self._low - self._margin) | (sent > self._high + self._margin)) & executed[..., None]
        stats.clipped_actions += float(outside.sum() / max(1, executed.sum() * sent.shape[2]))
        stats.noise_std += float(sample.mean_std)
        stats.env_steps += int(n.sum())
        self._return += np.asarray(torch.as_tensor(step.rewards).cpu()).sum(-1)
        self._length += n
        invalid = set(indices(step.invalid))
        stats.invalid += len(invalid)
        success = np.asarray(torch.as_tensor(step.success).cpu())
        for i in indices(step.ended):
            if i not in invalid:
                stats.episode_returns.append(float(self._return[i]))
                stats.episode_lengths.append(int(self._length[i]))
                stats.episode_successes.append(bool(success[i]))
