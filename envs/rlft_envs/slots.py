"""Several environments of one process, stepped by chunks: the rules of the VecEnv contract, written once.

:class:`EnvSlots` serves the learner's own process (:class:`InProcessVecEnv`) and every worker process alike.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from rlft.types import ChunkStep, EnvSettings, EnvSpec, Observation
from rlft_envs.arrays import EnvArrays
from rlft_envs.checks import check_actions, check_env_ids, check_reset
from rlft_envs.errors import EnvSetupError
from rlft_envs.simulator import build_single_env
from rlft_envs.single import SingleEnv

log = logging.getLogger(__name__)


class EnvStepError(RuntimeError):
    """A simulator raised; the message names the environment, its seed and its step."""


class EnvSlots:
    """n environments and where each stands.

    Attributes:
        spec: the facts about one environment.
        envs: the environments, by slot.
        tasks: the instruction of each environment's running episode.
        arrays: observations, flags and metrics; replace it to have them written elsewhere (shared memory).
        started: bool ``[n]``, whether the environment was ever reset.
    """

    def __init__(self, settings: EnvSettings, env_ids: Sequence[int]) -> None:
        self._settings = settings
        self._ids = [settings.first_env + i for i in env_ids]
        self.envs: list[SingleEnv] = [build_single_env(settings) for _ in self._ids]
        self.envs[0].observe()  # the first image compiles shaders for seconds; let that be part of starting
        self.spec: EnvSpec = self.envs[0].spec
        self.tasks = [env.instruction for env in self.envs]
        self.arrays = EnvArrays.private(self.spec, len(self._ids))
        self.started = np.zeros(len(self._ids), dtype=bool)
        self._frames: dict[int, list[np.ndarray]] = {}

    def reset(self, slots: Sequence[int], seeds: Sequence[int], episode_ids: Sequence[int | None]) -> None:
        """Start the episodes named by seed and id in the environments ``slots``; their rows are written."""
        for slot, seed, episode_id in zip(slots, seeds, episode_ids, strict=True):
            env = self.envs[slot]
            try:
                env.reset(int(seed), episode_id)
                row = env.observe()
            except Exception as error:
                where = f"environment {self._ids[slot]} raised in reset, seed {seed}, episode id {episode_id}"
                raise EnvStepError(where) from error
            self.started[slot], self.tasks[slot] = True, env.instruction
            self.arrays.clear(slot)
            self.arrays.write(slot, row)
            if not row.is_finite():
                self._invalidate(slot, "observation")

    def rebuild(self, slot: int) -> None:
        """Replace an environment whose simulator failed: nobody knows its state."""
        self.envs[slot].close()
        self.envs[slot], self.started[slot] = build_single_env(self._settings), False

    def step_chunk(self, actions: np.ndarray, rewards: np.ndarray) -> None:
        """Execute up to A actions in every environment whose episode runs; the arrays are written.

        Args:
            actions: float32 ``[n, A, d]``, finite.
            rewards: float32 ``[n, A]``, written; 0 where nothing is executed.

        Raises:
            EnvSetupError: the task's metrics are not always the same.
            EnvStepError: the simulator raised.
        """
        rewards[:], self.arrays.n_executed[:] = 0.0, 0
        stepped = self.started & ~self.arrays.ended
        for slot in np.flatnonzero(stepped).tolist():
            env = self.envs[slot]
            try:
                self._step_one(slot, env, actions[slot], rewards[slot])
            except EnvSetupError:
                raise
            except Exception as error:
                where = f"environment {self._ids[slot]} raised in step {env.elapsed}, seed {env.seed}"
                raise EnvStepError(where) from error

    def record(self, slots: Sequence[int]) -> None:
        """Keep a human-view frame per executed step of these environments from now on, and of no others.

        Raises:
            EnvSetupError: the environments have no renderer.
        """
        for slot in slots:
            self.envs[slot].human_view()  # fails here rather than inside an episode
        self._frames = {slot: self._frames.get(slot, []) for slot in slots}

    def take_frames(self, slot: int) -> np.ndarray:
        """Return and forget an environment's frames, uint8 ``[n, height, width, 3]``."""
        frames = self._frames.get(slot, [])
        if slot in self._frames:
            self._frames[slot] = []
        return np.stack(frames) if frames else np.zeros((0, 0, 0, 3), np.uint8)

    def close(self) -> None:
        """Close all environments; may be called twice."""
        for env in self.envs:
            env.close()
        self.envs = []

    def _step_one(self, slot: int, env: SingleEnv, actions: np.ndarray, rewards: np.ndarray) -> None:
        """Run one environment's chunk to its end, or to the end of its episode; render once."""
        out = self.arrays
        for j, action in enumerate(actions):
            result = env.step(action, reward_due=not self._settings.reward_per_chunk or j + 1 == len(actions))
            out.n_executed[slot] = j + 1
            out.success_now[slot] = result.success
            out.success[slot] |= result.success
            out.terminated[slot], out.truncated[slot] = result.terminated, result.truncated
            out.write_metrics(slot, result.metrics)
            if slot in self._frames:
                self._frames[slot].append(env.human_view())
            if not math.isfinite(result.reward):
                self._invalidate(slot, "reward")
                break
            rewards[j] = result.reward
            if result.terminated or result.truncated:
                break
        row = env.observe()
        self.arrays.write(slot, row)
        if not row.is_finite():
            self._invalidate(slot, "observation")

    def _invalidate(self, slot: int, what: str) -> None:
        env = self.envs[slot]
        log.error("environment %d: %s is not finite, step %d, seed %s", self._ids[slot], what, env.elapsed, env.seed)
        self.arrays.invalid[slot] = True


class InProcessVecEnv:
    """A VecEnv whose environments run one after another in this process (``num_workers=0``)."""

    def __init__(self, settings: EnvSettings) -> None:
        self._slots = EnvSlots(settings, range(settings.num_envs))

    @property
    def spec(self) -> EnvSpec:
        """The facts about this environment."""
        return self._slots.spec

    def reset(
        self, env_ids: Sequence[int], seeds: Sequence[int], episode_ids: Sequence[int] | None = None
    ) -> Observation:
        """See :meth:`rlft.types.VecEnv.reset`."""
        self._slots.reset(env_ids, seeds, check_reset(env_ids, seeds, episode_ids, self.spec))
        return self._slots.arrays.observation(env_ids, self._slots.tasks)

    def step_chunk(self, actions: np.ndarray) -> ChunkStep:
        """See :meth:`rlft.types.VecEnv.step_chunk`."""
        slots = self._slots
        if not slots.started.all():
            raise RuntimeError(f"environments {np.flatnonzero(~slots.started).tolist()} are stepped before a reset")
        actions = check_actions(actions, self.spec)
        rewards = np.zeros(actions.shape[:2], np.float32)
        slots.step_chunk(actions, rewards)
        return slots.arrays.chunk_step(rewards, slots.tasks)

    def record(self, env_ids: Sequence[int]) -> None:
        """See :meth:`rlft.types.VecEnv.record`."""
        check_env_ids(env_ids, self.spec.num_envs)
        self._slots.record(env_ids)

    def take_frames(self, env_id: int) -> np.ndarray:
        """See :meth:`rlft.types.VecEnv.take_frames`."""
        check_env_ids([env_id], self.spec.num_envs)
        return self._slots.take_frames(env_id)

    def close(self) -> None:
        """Free the simulators; may be called twice."""
        self._slots.close()
