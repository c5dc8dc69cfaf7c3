"""The data that crosses the border between the learner and the simulators.

Dimension legend (one letter per axis; used in names, shapes and docs)::

    E environments          T chunk decisions per rollout    B minibatch rows
    H horizon: steps that the policy predicts                K denoise steps
    A act_steps: steps that are executed (A <= H)            V cameras
    D padded width of an action inside the model (32)        d the robot's action width
    S state width           P width of the simulator's privileged state

Time inside the flow: ``t = 1`` is noise and ``t = 0`` is the action.

This module imports numpy and nothing else, and runs on Python 3.10: simulator workers may live under another
interpreter than the learner. An ``Array`` is a numpy array where physics runs on the CPU and a torch tensor on
``sim.device`` where it runs on a GPU; :meth:`rlft.placement.Placement.to_policy` accepts both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

Array = Any  # np.ndarray | torch.Tensor; torch is not imported here on purpose


@dataclass(frozen=True)
class CameraSettings:
    """One rendered camera. ``eye`` and ``target`` of None keep the task's own placement.

    Attributes:
        name: the simulator's camera name; also the policy's image key.
        height: rows, pixels.
        width: columns, pixels.
        fov: vertical field of view, radians; None keeps the task's own.
        eye: camera position in the world, metres.
        target: the point that the camera looks at, metres.
    """

    name: str
    height: int
    width: int
    fov: float | None = None
    eye: tuple[float, float, float] | None = None
    target: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class RewardSettings:
    """How the per-step reward is made from what the simulator reports (see rlft_envs.rewards).

    Attributes:
        mode: ``dense_difference`` (scale x increase of the task's normalised dense reward),
            ``dense`` (the dense reward itself) or ``sparse`` (the bonus alone).
        scale: factor on the dense part.
        success_bonus: added once, at the step that first succeeds.
    """

    mode: str = "dense_difference"
    scale: float = 1.0
    success_bonus: float = 1.0


@dataclass(frozen=True)
class EnvSettings:
    """Everything a simulator is told. Plain data, so that it can be sent to a worker as JSON.

    Attributes:
        simulator: its name, or ``package.module:Name`` (see rlft.plugins).
        env_id: the simulator's own id, for instance ``PushCube-v1``; ``package.module:Id`` imports the module first.
        num_envs: E.
        max_episode_steps: truncation, environment steps.
        control_mode: the simulator's controller; the recorded actions are in this mode.
        cameras: what is rendered; empty for state-only.
        state_terms: what the policy's state vector is made of, in order (``tcp_pos``, ``tcp_pose``,
            ``qpos``, ``gripper``; see rlft_envs.maniskill.reading.STATE_TERMS).
        privileged: also return the simulator's full state, for an asymmetric critic.
        instruction: the language instruction; None takes the task's default.
        robot: robot uid; None keeps the task's default.
        shader: renderer preset (``minimal``, ``default``, ...).
        sim_backend: ``cpu`` or ``gpu`` physics.
        render_backend: the simulator's name of the rendering device; None for its default.
        sim_device: torch device string for GPU physics (``cuda:0``); ``cpu`` otherwise.
        num_workers: worker processes for CPU physics; 0 runs everything in this process.
        step_timeout_s: a worker that needs longer than this for one message is called hung.
        max_restarts: how often one worker may be restarted before the run stops.
        reward: reward settings.
        reward_per_chunk: only the sum of a chunk's rewards will be looked at: the simulator may compute its dense
            reward once, at the last executed step (mode ``dense_difference`` only).
        episode_ends_on_success: whether success terminates the episode.
        make_kwargs: further keyword arguments of the simulator's constructor.
        options: the simulator's own settings, as it declares them.
        first_env: index of environment 0 in the whole rollout; for messages.
        assets_root: directory of downloaded simulator assets; None where the simulator's own place serves.
    """

    simulator: str
    env_id: str
    num_envs: int
    max_episode_steps: int
    control_mode: str
    cameras: tuple[CameraSettings, ...] = ()
    state_terms: tuple[str, ...] = ("tcp_pos",)
    privileged: bool = False
    instruction: str | None = None
    robot: str | None = None
    shader: str = "minimal"
    sim_backend: str = "cpu"
    render_backend: str | None = None
    sim_device: str = "cpu"
    num_workers: int = 0
    step_timeout_s: float = 120.0
    max_restarts: int = 3
    reward: RewardSettings = field(default_factory=RewardSettings)
    reward_per_chunk: bool = False
    episode_ends_on_success: bool = True
    make_kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    first_env: int = 0
    assets_root: str | None = None


@dataclass(frozen=True)
class EnvSpec:
    """What a built environment is: the facts that policy, buffer and statistics are checked against.

    Attributes:
        env_id: as in the settings.
        num_envs: E.
        action_low: lower action bounds, length d (the recorded and executed units).
        action_high: upper action bounds, length d.
        state_dim: S.
        cameras: rendered cameras, in the order of ``Observation.images``.
        control_mode: the controller.
        control_hz: environment steps per simulated second.
        max_episode_steps: truncation, environment steps.
        privileged_dim: P, or 0.
        num_episode_ids: how many numbered configurations the task has; 0 where they are not numbered.
    """

    env_id: str
    num_envs: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    state_dim: int
    cameras: tuple[CameraSettings, ...]
    control_mode: str
    control_hz: float
    max_episode_steps: int
    privileged_dim: int = 0
    num_episode_ids: int = 0

    @property
    def act_dim(self) -> int:
        """The robot's action width d."""
        return len(self.action_low)


@dataclass(frozen=True)
class ConfigurationSpace:
    """A task's numbered configurations.

    Attributes:
        axes: of their mixed-radix numbers: name -> how many values, the slowest first.
        labels: number -> what an evaluation groups it by; the same keys for every one.
        balanced_first: axes whose combinations a stratified sample balances before those with any other.
    """

    axes: Mapping[str, int]
    labels: Callable[[int], Mapping[str, str]]
    balanced_first: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many there are."""
        return math.prod(self.axes.values())


@dataclass
class Observation:
    """What the policy looks at, for n environments (n = E, or the ones asked for).

    Attributes:
        images: camera name -> uint8 ``[n, height, width, 3]``, RGB.
        state: float32 ``[n, S]``, physical units, not normalised.
        task: n language instructions.
        privileged: float32 ``[n, P]``, or None.
    """

    images: dict[str, Array]
    state: Array
    task: list[str]
    privileged: Array | None = None


@dataclass
class ChunkStep:
    """The outcome of executing one action chunk in each environment.

    An environment that ends at step j executes nothing after it: ``n_executed = j + 1``, ``rewards[:, j + 1:] = 0``.
    One that had ended before, and was not reset: ``n_executed = 0``, flags and observation as they were.

    Attributes:
        obs: the observation after the last executed step; for an ended environment its true final one.
        rewards: float32 ``[E, A]``.
        n_executed: int64 ``[E]``, 0..A.
        terminated: bool ``[E]``, the task ended (success or failure): no value beyond.
        truncated: bool ``[E]``, the time limit ended it: the value of the final observation counts.
        success: bool ``[E]``, success at any step of the episode so far (latched).
        success_now: bool ``[E]``, success at the last executed step.
        invalid: bool ``[E]``, the simulator failed (a worker died, NaN): discard the episode; reset it.
        metrics: task metric name -> float32 ``[E]``, at the last executed step.
    """

    obs: Observation
    rewards: Array
    n_executed: Array
    terminated: Array
    truncated: Array
    success: Array
    success_now: Array
    invalid: Array
    metrics: dict[str, Array] = field(default_factory=dict)

    @property
    def ended(self) -> Array:
        """Bool ``[E]``: the environment has to be reset before it can be stepped again."""
        return self.terminated | self.truncated | self.invalid


@runtime_checkable
class VecEnv(Protocol):
    """A batch of environments, stepped by action chunks, that never resets by itself (proved in tests/contract)."""

    @property
    def spec(self) -> EnvSpec:
        """The facts about this environment."""
        ...

    def reset(
        self, env_ids: Sequence[int], seeds: Sequence[int], episode_ids: Sequence[int] | None = None
    ) -> Observation:
        """Start new episodes in the named environments; no other environment may notice.

        Args:
            env_ids: distinct indices in ``0..E-1``.
            seeds: one per index; the same seed gives the same episode.
            episode_ids: one per index, in ``0..spec.num_episode_ids-1``: which of the task's numbered configurations;
                None: the seed decides.

        Returns:
            the first observations, one row per index, in the order of ``env_ids``.
        """
        ...

    def step_chunk(self, actions: Array) -> ChunkStep:
        """Execute up to A actions per environment.

        Args:
            actions: float32 ``[E, A, d]``, in the controller's units. Must be finite.

        Raises:
            ValueError: an action is NaN or infinite (names environment and step), or the shape is wrong.
        """
        ...

    def record(self, env_ids: Sequence[int]) -> None:
        """From now on keep a human-view frame per executed step of these environments, and forget those of others."""
        ...

    def take_frames(self, env_id: int) -> np.ndarray:
        """Return and forget the recorded frames, uint8 ``[n, height, width, 3]``; recording goes on."""
        ...

    def close(self) -> None:
        """Free processes and memory; may be called twice."""
        ...


@dataclass(frozen=True)
class DemoAttempt:
    """A demonstration to try: its number in the run, the episode's seed, and the seed of its action noise."""

    number: int
    seed: int
    noise_seed: int


@dataclass
class DemoRecording:
    """What came of a :class:`DemoAttempt`.

    Attributes:
        attempt: what was tried.
        outcome: ``success``, or the kind of failure (see rlft_envs.record.FAILURES).
        message: why it failed.
        solved_at: steps until the first success, or None.
        seconds: wall time.
        images: camera name -> one uint8 ``[height, width, 3]`` per recorded step.
        states: one float32 ``[S]`` per recorded step.
        actions: one float32 ``[d]`` per recorded step, controller units.
        instruction: the episode's language instruction.
    """

    attempt: DemoAttempt
    outcome: str
    message: str = ""
    solved_at: int | None = None
    seconds: float = 0.0
    images: dict[str, list[np.ndarray]] = field(default_factory=dict)
    states: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    instruction: str = ""


@dataclass(frozen=True)
class DemoSource:
    """Who demonstrates where; ``still_dims`` are the action dimensions that the planner never changes."""

    spec: EnvSpec
    planner: str
    versions: dict[str, str]
    still_dims: tuple[int, ...]
