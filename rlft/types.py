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

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

Array = Any  # np.ndarray | torch.Tensor; torch is not imported here on purpose


@dataclass(frozen=True)
class CameraSettings:
    """One rendered camera. ``eye`` and ``target`` of None keep the task's own placement."""

    name: str  # the simulator's camera name; also the policy's image key
    height: int  # rows, pixels
    width: int  # columns, pixels
    fov: float | None = None  # vertical field of view, radians; None keeps the task's own
    eye: tuple[float, float, float] | None = None  # camera position in the world, metres
    target: tuple[float, float, float] | None = None  # the point that the camera looks at, metres


@dataclass(frozen=True)
class RewardSettings:
    """How the per-step reward is made from what the simulator reports (see rlft_envs.rewards)."""

    # `dense_difference` (scale x increase of the task's normalised dense reward), `dense` (the dense reward itself)
    # or `sparse` (the bonus alone)
    mode: str = "dense_difference"
    scale: float = 1.0  # factor on the dense part
    success_bonus: float = 1.0  # added once, at the step that first succeeds


@dataclass(frozen=True)
class EnvSettings:
    """Everything a simulator is told. Plain data, so that it can be sent to a worker."""

    simulator: str  # its name, or `package.module:Name` (see rlft.plugins)
    env_id: str  # the simulator's own id, for instance `PushCube-v1`; `package.module:Id` imports the module first
    num_envs: int  # E
    max_episode_steps: int  # truncation, environment steps
    control_mode: str  # the simulator's controller; the recorded actions are in this mode
    cameras: tuple[CameraSettings, ...] = ()  # what is rendered; empty for state-only
    # what the policy's state vector is made of, in order (`tcp_pos`, `tcp_pose`, `qpos`, `gripper`; the
    # simulator says which there are)
    state_terms: tuple[str, ...] = ("tcp_pos",)
    privileged: bool = False  # also return the simulator's full state, for an asymmetric critic
    instruction: str | None = None  # the language instruction; None takes the task's default
    robot: str | None = None  # robot uid; None keeps the task's default
    shader: str = "minimal"  # renderer preset (`minimal`, `default`, ...)
    sim_backend: str = "cpu"  # `cpu` or `gpu` physics
    render_backend: str | None = None  # the simulator's name of the rendering device; None for its default
    sim_device: str = "cpu"  # torch device string for GPU physics (`cuda:0`); `cpu` otherwise
    num_workers: int = 0  # worker processes for CPU physics; 0 runs everything in this process
    step_timeout_s: float = 120.0  # a worker that needs longer than this for one message is called hung
    max_restarts: int = 3  # how often one worker may be restarted before the run stops
    reward: RewardSettings = field(default_factory=RewardSettings)  # reward settings
    # only the sum of a chunk's rewards will be looked at: the simulator may compute its dense reward once, at the last
    # executed step (mode `dense_difference` only)
    reward_per_chunk: bool = False
    episode_ends_on_success: bool = True  # whether success terminates the episode
    # further keyword arguments of the simulator's constructor
    make_kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  # the simulator's own settings, as it declares them
    first_env: int = 0  # index of environment 0 in the whole rollout; for messages
    # directory of downloaded simulator assets; None where the simulator's own place serves
    assets_root: str | None = None


@dataclass(frozen=True)
class EnvSpec:
    """What a built environment is: the facts that policy, buffer and statistics are checked against."""

    env_id: str  # as in the settings
    num_envs: int  # E
    action_low: tuple[float, ...]  # lower action bounds, length d (the recorded and executed units)
    action_high: tuple[float, ...]  # upper action bounds, length d
    state_dim: int  # S
    cameras: tuple[CameraSettings, ...]  # rendered cameras, in the order of `Observation.images`
    control_mode: str  # the controller
    control_hz: float  # environment steps per simulated second
    max_episode_steps: int  # truncation, environment steps
    privileged_dim: int = 0  # P, or 0
    num_configurations: int = 0  # how many numbered configurations the task has; 0 where they are not numbered

    @property
    def act_dim(self) -> int:
        """The robot's action width d."""
        return len(self.action_low)


@dataclass(frozen=True)
class ConfigurationSpace:
    """A task's numbered configurations."""

    axes: Mapping[str, int]  # of their mixed-radix numbers: name -> how many values, the slowest first
    labels: Callable[[int], Mapping[str, str]]  # number -> what an evaluation groups it by; the same keys for every one
    # axes whose combinations a stratified sample balances before those with any other
    balanced_first: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many there are."""
        return math.prod(self.axes.values())


@dataclass
class Observation:
    """What the policy looks at, for n environments (n = E, or the ones asked for)."""

    images: dict[str, Array]  # camera name -> uint8 `[n, height, width, 3]`, RGB
    state: Array  # float32 `[n, S]`, physical units, not normalised
    task: list[str]  # n language instructions
    privileged: Array | None = None  # float32 `[n, P]`, or None


def map_rows(f: Callable[..., Array], first: Any, *others: Any) -> Any:
    """Apply a function to every array of bundles that have the same form, and so to the rows of all of them.

    A bundle is an array, an :class:`Observation` or another dataclass, None, or a nested dictionary of these. ``f``
    takes one array of each, whose first axis is the environment (instructions as an array of objects), and what it
    returns makes a bundle of that form.
    """
    if first is None:
        return None
    if is_dataclass(first) and not isinstance(first, type):
        columns = {x.name: [getattr(obs, x.name) for obs in (first, *others)] for x in fields(first)}
        return type(first)(**{name: map_rows(f, *arrays) for name, arrays in columns.items()})
    if isinstance(first, dict):
        return {name: map_rows(f, first[name], *(other[name] for other in others)) for name in first}
    if isinstance(first, list):
        return f(*(np.array(texts, dtype=object) for texts in (first, *others))).tolist()
    return f(first, *others)


@dataclass
class ChunkStep:
    """The outcome of executing one action chunk in each environment.

    An environment that ends at step j executes nothing after it: ``n_executed = j + 1``, ``rewards[:, j + 1:] = 0``.
    One that had ended before, and was not reset: ``n_executed = 0``, flags and observation as they were.
    """

    obs: Observation  # the observation after the last executed step; for an ended environment its true final one
    rewards: Array  # float32 `[E, A]`
    n_executed: Array  # int64 `[E]`, 0..A
    terminated: Array  # bool `[E]`, the task ended (success or failure): no value beyond
    truncated: Array  # bool `[E]`, the time limit ended it: the value of the final observation counts
    success: Array  # bool `[E]`, success at any step of the episode so far (latched)
    success_now: Array  # bool `[E]`, success at the last executed step
    invalid: Array  # bool `[E]`, the simulator failed (a worker died, NaN): discard the episode; reset it
    # task metric name -> float32 `[E]`, at the last executed step
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

    def reset(
        self, env_ids: Sequence[int], seeds: Sequence[int], configuration_ids: Sequence[int] | None = None
    ) -> Observation:
        """Start new episodes in the named environments; no other environment may notice.

        Args:
            env_ids: distinct indices in ``0..E-1``.
            seeds: one per index; the same seed gives the same episode.
            configuration_ids: one per index, in ``0..spec.num_configurations-1``: which of the task's configurations;
                None: the seed decides.

        Returns:
            the first observations, one row per index, in the order of ``env_ids``.
        """

    def step_chunk(self, actions: Array) -> ChunkStep:
        """Execute up to A actions per environment.

        Args:
            actions: float32 ``[E, A, d]``, in the controller's units. Must be finite.

        Raises:
            ValueError: an action is NaN or infinite (names environment and step), or the shape is wrong.
        """

    def record(self, env_ids: Sequence[int]) -> None:
        """From now on keep a human-view frame per executed step of these environments, and forget those of others."""

    def take_frames(self, env_id: int) -> np.ndarray:
        """Return and forget the recorded frames, uint8 ``[n, height, width, 3]``; recording goes on."""

    def close(self) -> None:
        """Free processes and memory; may be called twice."""


@dataclass(frozen=True)
class DemoAttempt:
    """A demonstration to try: its number in the run, the episode's seed, and the seed of its action noise."""

    number: int
    seed: int
    noise_seed: int


@dataclass(frozen=True)
class AttemptRecord:
    """What came of a :class:`DemoAttempt`."""

    number: int  # the attempt's number
    seed: int  # the episode's seed
    outcome: str  # `success`, or the kind of failure (see rlft_envs.record.FAILURES)
    steps: int  # recorded steps
    success_step: int | None  # steps until the first success, or None
    seconds: float  # wall time
    message: str  # why it failed


@dataclass(frozen=True)
class DemoSource:
    """Who demonstrates, and in what."""

    spec: EnvSpec  # the environment that is demonstrated in
    planner: str  # the planner's name, as it is stored with the dataset
    versions: dict[str, str]  # package name -> version, of what decides the planner's actions and the physics
    # action dimensions that the planner never changes (a gripper that stays closed)
    frozen_action_dims: tuple[int, ...]
