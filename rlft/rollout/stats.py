"""What is counted during a rollout, for the log."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from rlft.rollout.group import Executed
from rlft.types import EnvSpec


@dataclass
class RolloutStats:
    """What happened during one rollout."""

    env_steps: int = 0  # executed environment steps, all environments
    # undiscounted returns of the episodes that ended, by their lengths in environment steps and whether they succeeded
    episode_returns: list[float] = field(default_factory=list)
    episode_lengths: list[int] = field(default_factory=list)
    episode_successes: list[bool] = field(default_factory=list)
    invalid: int = 0  # chunks lost to simulator failures
    clipped_actions: int = 0  # executed action numbers outside the controller's bounds
    sent_actions: int = 0  # executed action numbers
    # mean std of the exploration per policy call, model units; scalars where the policy lives, so that no decision
    # waits for its number
    noise_stds: list[torch.Tensor] = field(default_factory=list)
    seconds: float = 0.0  # wall time
    env_seconds: float = 0.0  # time inside the simulators; with overlap, part of it ran beside the policy
    wait_seconds: float = 0.0  # time in which the policy waited for a simulator
    randomization: dict[str, float] = field(default_factory=dict)  # how much the images were changed, by scalar

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for a simulator."""
        started = time.perf_counter()
        yield
        self.wait_seconds += time.perf_counter() - started

    def scalars(self) -> dict[str, float]:
        """Means for the log. Success here is of episodes that ended inside the window: for trends, not for claims."""
        return {
            "rollout/success": _mean(self.episode_successes),
            "rollout/return": _mean(self.episode_returns),
            "rollout/episode_length": _mean(self.episode_lengths),
            "rollout/episodes": float(len(self.episode_returns)),
            "rollout/env_steps": float(self.env_steps),
            "rollout/invalid_chunks": float(self.invalid),
            "rollout/clipped_actions": self.clipped_actions / max(1, self.sent_actions),
            "rollout/noise_std": _mean(torch.stack(self.noise_stds).tolist() if self.noise_stds else []),
            "time/rollout_seconds": self.seconds,
            "time/env_seconds": self.env_seconds,
            "time/env_wait_seconds": self.wait_seconds,
            "time/policy_seconds": self.seconds - self.wait_seconds,
            "throughput/env_steps_per_s": self.env_steps / max(self.seconds, 1e-9),
            **self.randomization,
        }


class EpisodeTally:
    """Returns and lengths of the episodes that run, over all E environments."""

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        self._low, self._high = np.array(spec.action_low), np.array(spec.action_high)
        self._margin = 0.01 * (self._high - self._low)  # a bound that is missed by a hair is no clipping
        self._return, self._length = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)

    def forget(self) -> None:
        """All environments start new episodes."""
        self._return[:], self._length[:] = 0.0, 0

    def add(self, stats: RolloutStats, ids: Sequence[int], executed: Executed) -> None:
        """Count one chunk of n environments, by their global indices."""
        step, sent, rows = executed.step, executed.actions, np.asarray(ids)
        happened = np.arange(sent.shape[1]) < step.n_executed[:, None]  # [n, A]
        outside = ((sent < self._low - self._margin) | (sent > self._high + self._margin)) & happened[..., None]
        stats.clipped_actions += int(outside.sum())
        stats.sent_actions += int(happened.sum()) * sent.shape[2]
        stats.env_seconds += executed.seconds
        stats.env_steps += int(step.n_executed.sum())
        stats.invalid += int(step.invalid.sum())
        self._return[rows] += step.rewards.sum(-1)
        self._length[rows] += step.n_executed
        counted = step.ended & ~step.invalid
        stats.episode_returns += self._return[rows[counted]].tolist()
        stats.episode_lengths += self._length[rows[counted]].tolist()
        stats.episode_successes += step.success[counted].tolist()
        self._return[rows[step.ended]], self._length[rows[step.ended]] = 0.0, 0


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
