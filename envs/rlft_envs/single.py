"""One environment on the CPU: what a simulator has to provide, and the episode rules that all of them share.

A simulator implements some small hooks. Time limit, reward, success and the end of an episode are decided here,
once, so that they mean the same everywhere.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from rlft.types import EnvSettings, EnvSpec
from rlft_envs.errors import EnvSetupError
from rlft_envs.rewards import step_reward


@dataclass(frozen=True)
class Outcome:
    """What a simulator reports after one step."""

    success: bool  # the task is solved now
    fail: bool = False  # the task can no longer be solved
    cut: bool = False  # the simulator ends the episode here, and its outcome stays open
    metrics: dict[str, float] = field(default_factory=dict)  # task metric name -> value


@dataclass(frozen=True)
class StepResult:
    """One executed step."""

    reward: float  # see :mod:`rlft_envs.rewards`
    terminated: bool  # the task ended, by success (where it ends the episode) or failure
    truncated: bool  # the time limit was reached without terminating, or the simulator cut the episode off
    success: bool  # the task is solved now
    metrics: dict[str, float]  # task metric name -> value


@dataclass(frozen=True)
class ObservationRow:
    """One environment's observation: a row of :class:`rlft.types.Observation`."""

    images: dict[str, np.ndarray]  # camera name -> uint8 `[height, width, 3]`
    state: np.ndarray  # float32 `[S]`, physical units
    privileged: np.ndarray | None = None  # float32 `[P]`, or None

    def is_finite(self) -> bool:
        """Whether state and privileged state hold numbers only."""
        return all(np.isfinite(values).all() for values in (self.state, self.privileged) if values is not None)


def spec_of(
    settings: EnvSettings,
    bounds: tuple[Iterable[float], Iterable[float]],
    state_dim: int,
    control_hz: float,
    privileged_dim: int = 0,
    num_configurations: int = 0,
) -> EnvSpec:
    """The facts about an environment: what the settings say, and what it says itself; bounds are lower and upper."""
    low, high = (tuple(float(x) for x in side) for side in bounds)
    said = settings.cameras, settings.control_mode, float(control_hz), settings.max_episode_steps
    return EnvSpec(settings.env_id, settings.num_envs, low, high, state_dim, *said, privileged_dim, num_configurations)


class SingleEnv(ABC):
    """One environment, stepped one action at a time."""

    spec: EnvSpec  # the facts about it, with `num_envs` as in the settings; a simulator sets it when it is built

    def __init__(self, settings: EnvSettings) -> None:
        if settings.reward_per_chunk and settings.reward.mode != "dense_difference":
            wrong = f"reward_per_chunk goes with env.reward.mode=dense_difference, not with {settings.reward.mode!r}"
            raise EnvSetupError(f"{wrong}: only differences add up to the same sum when steps are left out")
        self.settings, self._rewards_dense = settings, settings.reward.mode != "sparse"
        self.seed: int | None = None  # of the running episode; None before the first reset
        self.configuration_id: int | None = None  # the one that was asked for; None: the seed decided
        self.elapsed = 0  # steps executed in the running episode
        self._dense = 0.0
        self._succeeded = False

    def reset(self, seed: int, configuration_id: int | None = None) -> None:
        """Start the episode that ``seed`` names: the same seed gives the same episode, whatever ran before.

        A ``configuration_id`` in ``0..spec.num_configurations-1`` is the configuration, which is then not drawn.
        """
        self.seed, self.configuration_id, self.elapsed, self._succeeded = seed, configuration_id, 0, False
        self._start_episode(seed, configuration_id)
        self._dense = self._dense_reward() if self._rewards_dense else 0.0

    def step(self, action: np.ndarray, reward_due: bool = True) -> StepResult:
        """Execute one action, float32 ``[d]`` in the controller's units; finite.

        Where no reward is due, the dense one is left to a later step unless the episode ends here. In mode
        ``dense_difference`` that step then reports the whole difference: the sum is that of the steps between, up to
        rounding, and a dense reward that is not a number is noticed only there.
        """
        if self.seed is None:
            raise RuntimeError("step() before reset(seed)")
        outcome = self._advance(action)
        self.elapsed += 1
        terminated = outcome.fail or (outcome.success and self.settings.episode_ends_on_success)
        truncated = not terminated and (outcome.cut or self.elapsed >= self.settings.max_episode_steps)
        dense = self._dense
        if self._rewards_dense and (reward_due or terminated or truncated):
            dense = self._dense_reward()
        first = float(outcome.success and not self._succeeded)
        reward = float(step_reward(self.settings.reward, dense, self._dense, first))
        self._dense, self._succeeded = dense, self._succeeded or outcome.success
        return StepResult(reward, terminated, truncated, outcome.success, outcome.metrics)

    @property
    @abstractmethod
    def instruction(self) -> str:
        """The running episode's language instruction."""

    @abstractmethod
    def observe(self) -> ObservationRow:
        """Render the cameras and read the state. The only place where cameras are rendered."""

    @abstractmethod
    def human_view(self) -> np.ndarray:
        """An image for people, uint8 ``[height, width, 3]``."""

    @abstractmethod
    def close(self) -> None:
        """Free memory; may be called twice."""

    @abstractmethod
    def _start_episode(self, seed: int, configuration_id: int | None) -> None:
        """Reset the simulation."""

    @abstractmethod
    def _advance(self, action: np.ndarray) -> Outcome:
        """Step the simulation by one action, without rendering."""

    @abstractmethod
    def _dense_reward(self) -> float:
        """The task's normalised dense reward of the state reached; not asked for where the reward is sparse."""
