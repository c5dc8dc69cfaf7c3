"""Several environments of one process, stepped by chunks: the rules of the VecEnv contract, written once.

:class:`EnvGroup` serves the learner's own process (:class:`InProcessVecEnv`) and every worker process alike.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from rlft.types import ChunkStep, EnvSettings, EnvSpec, Observation
from rlft_envs.arrays import ObservationArrays, Outcomes
from rlft_envs.checks import check_actions, check_env_ids, check_reset
from rlft_envs.simulator import build_single_env
from rlft_envs.single import SingleEnv

log = logging.getLogger(__name__)


class EnvStepError(RuntimeError):
    """A simulator raised; the message names the environment, its seed and its step."""


class EnvGroup:
    """n environments and where each stands.

    Attributes:
        spec: the facts about one environment.
        tasks: the instruction of each environment's running episode.
        rows: the observations; replace it to have them written elsewhere (shared memory).
        outcomes: flags, rewards and metrics of the last chunk.
        started: bool ``[n]``, whether the environment was ever reset.
    """

    def __init__(self, settings: EnvSettings, env_ids: Sequence[int]) -> None:
        self._reward_per_chunk = settings.reward_per_chunk
        self._ids = [settings.first_env + i for i in env_ids]
        self._envs: list[SingleEnv] = [build_single_env(settings) for _ in self._ids]
        self._envs[0].observe()  # the first picture compiles shaders for seconds; let that be part of starting
        self.spec: EnvSpec = self._envs[0].spec
        self.tasks = [env.instruction for env in self._envs]
        self.rows = ObservationArrays.private(self.spec, len(self._ids))
        self.outcomes = Outcomes.fresh(len(self._ids))
        self.started = np.zeros(len(self._ids), dtype=bool)
        self._frames: dict[int, list[np.ndarray]] = {}

    def reset(self, slots: Sequence[int], seeds: Sequence[int], episode_ids: Sequence[int | None]) -> None:
        """Start the episodes named by seed and id in the environments ``slots``; their rows are written."""
        for slot, seed, episode_id in zip(slots, seeds, episode_ids, strict=True):
            env = self._envs[slot]
            try:
                env.reset(int(seed), episode_id)
                row = env.observe()
            except Exception as error:
                where = f"environment {self._ids[slot]} raised in reset, seed {seed}, episode id {episode_id}"
                raise EnvStepError(where) from error
            self.started[slot], self.tasks[slot] = True, env.instruction
            self.outcomes.begin_episode(slot)
            self.rows.write(slot, row)
            if not row.is_finite():
                self._invalidate(slot, "observation")

    def step_chunk(self, actions: np.ndarray) -> None:
        """Execute up to A actions in every environment whose episode runs; rows and outcomes are written.

        Args:
            actions: float32 ``[n, A, d]``, finite.
        """
        self.outcomes.begin_chunk(actions.shape[1])
        for slot, env in enumerate(self._envs):
            if not self.started[slot] or self.outcomes.ended[slot]:
                continue
            try:
                self._step_one(slot, env, actions[slot])
            except Exception as error:
                where = f"environment {self._ids[slot]} raised in step {env.elapsed}, seed {env.seed}"
                raise EnvStepError(where) from error

    def record(self, slots: Sequence[int]) -> None:
        """Keep a human-view frame per executed step of these environments from now on, and of no others.

        Raises:
            EnvSetupError: the environments have no renderer.
        """
        for slot in slots:
            self._envs[slot].human_view()  # fails here rather than inside an episode
        self._frames = {slot: self._frames.get(slot, []) for slot in slots}

    def take_frames(self, slot: int) -> np.ndarray:
        """Return and forget an environment's frames, uint8 ``[n, height, width, 3]``."""
        frames = self._frames.get(slot, [])
        if slot in self._frames:
            self._frames[slot] = []
        return np.stack(frames) if frames else np.zeros((0, 0, 0, 3), np.uint8)

    def close(self) -> None:
        """Close all environments; may be called twice."""
        for env in self._envs:
            env.close()
        self._envs = []

    def _step_one(self, slot: int, env: SingleEnv, actions: np.ndarray) -> None:
        """Run one environment's chunk to its end, or to the end of its episode; render once."""
        out = self.outcomes
        for j, action in enumerate(actions):
            result = env.step(action, reward_due=not self._reward_per_chunk or j + 1 == len(actions))
            out.n_executed[slot] = j + 1
            out.success_now[slot] = result.success
            out.success[slot] |= result.success
            out.terminated[slot], out.truncated[slot] = result.terminated, result.truncated
            out.record(slot, result.metrics)
            if slot in self._frames:
                self._frames[slot].append(env.human_view())
            if not math.isfinite(result.reward):
                self._invalidate(slot, "reward")
                break
            out.rewards[slot, j] = result.reward
            if result.terminated or result.truncated:
                break
        row = env.observe()
        self.rows.write(slot, row)
        if not row.is_finite():
            self._invalidate(slot, "observation")

    def _invalidate(self, slot: int, what: str) -> None:
        env = self._envs[slot]
        log.error("environment %d: %s is not finite, step %d, seed %s", self._ids[slot], what, env.elapsed, env.seed)
        self.outcomes.invalid[slot] = True


class InProcessVecEnv:
    """A VecEnv whose environments run one after another in this process (``num_workers=0``)."""

    def __init__(self, settings: EnvSettings) -> None:
        self._group = EnvGroup(settings, range(settings.num_envs))

    @property
    def spec(self) -> EnvSpec:
        """The facts about this environment."""
        return self._group.spec

    def reset(
        self, env_ids: Sequence[int], seeds: Sequence[int], episode_ids: Sequence[int] | None = None
    ) -> Observation:
        """See :meth:`rlft.types.VecEnv.reset`."""
        self._group.reset(env_ids, seeds, check_reset(env_ids, seeds, episode_ids, self.spec))
        return self._group.rows.observation(env_ids, self._group.tasks)

    def step_chunk(self, actions: np.ndarray) -> ChunkStep:
        """See :meth:`rlft.types.VecEnv.step_chunk`."""
        group = self._group
        if not group.started.all():
            raise RuntimeError(f"environments {np.flatnonzero(~group.started).tolist()} are stepped before a reset")
        group.step_chunk(check_actions(actions, self.spec))
        return group.outcomes.chunk_step(group.rows.observation(range(self.spec.num_envs), group.tasks))

    def record(self, env_ids: Sequence[int]) -> None:
        """See :meth:`rlft.types.VecEnv.record`."""
        check_env_ids(env_ids, self.spec.num_envs)
        self._group.record(env_ids)

    def take_frames(self, env_id: int) -> np.ndarray:
        """See :meth:`rlft.types.VecEnv.take_frames`."""
        check_env_ids([env_id], self.spec.num_envs)
        return self._group.take_frames(env_id)

    def close(self) -> None:
        """Free the simulators; may be called twice."""
        self._group.close()
