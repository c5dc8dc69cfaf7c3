"""Several environments of one process, and what can be asked of them: the rules of the VecEnv contract, written once.

:class:`EnvSlots` serves a worker process and, without any, the learner's own process alike.
"""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rlft.types import AttemptRecord, DemoAttempt, DemoSource, EnvSettings, EnvSpec, map_rows
from rlft_envs.arrays import SharedStep, shared_step
from rlft_envs.errors import EnvSetupError
from rlft_envs.record import SIMULATOR_ERROR, SUCCESS, RecordSettings, package_versions, record
from rlft_envs.simulator import build_single_env, simulator_of
from rlft_envs.single import SingleEnv
from rlft_envs.task import expert_of, make_expert

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """What is to be known about environments that were built."""

    spec: EnvSpec
    tasks: list[str]  # their instructions
    source: DemoSource | None  # who demonstrates; None where nobody does


class EnvSlots:
    """n of the E environments, and where each stands. A slot is a position among the n.

    They follow each other. ``memory`` is the descriptor of what holds the arrays of all E
    (:func:`rlft_envs.arrays.shared_step`); None where nobody else looks at them.
    """

    def __init__(
        self, settings: EnvSettings, env_ids: Sequence[int], memory: int | None, demos: RecordSettings | None = None
    ) -> None:
        expert = None if demos is None else expert_of(settings)  # refuses before it builds
        self._settings, self._demos, self.env_ids = settings, demos or RecordSettings(), list(env_ids)
        self._memory = os.memfd_create("rlft-slots") if memory is None else memory
        self._rows = slice(env_ids[0], env_ids[-1] + 1)
        self._ids = [settings.first_env + i for i in env_ids]
        self.envs = [build_single_env(settings) for _ in self._ids]
        self.envs[0].observe()  # the first image compiles shaders for seconds; let that be part of starting
        self.spec: EnvSpec = replace(self.envs[0].spec, num_envs=settings.num_envs)
        self._out = self._shared(act_steps=0)
        self._frames: dict[int, list[np.ndarray]] = {}
        source = None
        if expert is not None:
            self.reset([(0, 0, None)])
            name, frozen = f"{expert.__module__}:{expert.__qualname__}", make_expert(self.envs[0]).frozen_action_dims
            source = DemoSource(self.spec, name, package_versions(simulator_of(settings).packages), frozen)
        self.ready = Ready(self.spec, [env.instruction for env in self.envs], source)

    def reset(self, starts: Sequence[tuple[int, int, int | None]]) -> list[str]:
        """Start episodes, by slot, seed and configuration; their rows are written. Answers with the instructions."""
        for slot, seed, configuration_id in starts:
            try:
                self.envs[slot].reset(seed, configuration_id)
                self._out.clear(slot)
                self._observe(slot)
            except Exception as error:
                where = f"environment {self._ids[slot]} raised in reset, seed {seed}, configuration {configuration_id}"
                raise RuntimeError(where) from error
        return [self.envs[slot].instruction for slot, *_ in starts]

    def step(self, act_steps: int) -> list[str]:
        """Execute up to A actions, from the shared memory, where an episode runs; answers with the metrics' names."""
        if act_steps != self._out.actions.shape[1]:
            names, self._out = self._out.metrics, self._shared(act_steps)
            self._out.name_metrics(names)
        self._out.rewards[:], self._out.n_executed[:] = 0.0, 0
        for slot in np.flatnonzero(~self._out.ended).tolist():
            env = self.envs[slot]
            try:
                self._run_chunk(slot, env)
            except EnvSetupError:
                raise
            except Exception as error:
                where = f"environment {self._ids[slot]} raised in step {env.elapsed}, seed {env.seed}"
                raise RuntimeError(where) from error
        return list(self._out.metrics)

    def record(self, slots: Sequence[int]) -> None:
        """Keep a human-view frame per executed step of these environments from now on, and of no others."""
        for slot in slots:
            self.envs[slot].human_view()  # fails here rather than inside an episode
        self._frames = {slot: self._frames.get(slot, []) for slot in slots}

    def take_frames(self, slot: int) -> list[np.ndarray]:
        """Forget an environment's frames, and answer with them, uint8 ``[height, width, 3]`` each."""
        kept = self._frames.get(slot, [])
        frames, kept[:] = kept.copy(), []
        return frames

    def demonstrate(self, attempt: DemoAttempt, file: Path) -> AttemptRecord:
        """Make an attempt in slot 0; what it recorded is in the file before its outcome is told."""
        found = record(self.envs[0], make_expert, attempt, self._demos)
        if found.outcome == SIMULATOR_ERROR:  # its state is unknown now
            self.envs[0].close()
            self.envs[0] = build_single_env(self._settings)
        if found.actions and (found.outcome == SUCCESS or self._demos.keep_failures):
            found.save(file)
        return found.result()

    def close(self) -> None:
        """Close all environments; may be called twice."""
        for env in self.envs:
            env.close()
        self.envs = []

    def _shared(self, act_steps: int) -> SharedStep:
        return map_rows(lambda array: array[self._rows], shared_step(self._memory, self.spec, act_steps))

    def _run_chunk(self, slot: int, env: SingleEnv) -> None:
        """Run one environment's chunk to its end, or to the end of its episode; render once."""
        out, actions = self._out, self._out.actions[slot]
        for j, action in enumerate(actions):
            result = env.step(action, reward_due=not self._settings.reward_per_chunk or j + 1 == len(actions))
            out.n_executed[slot] = j + 1
            out.success_now[slot] = result.success
            out.success[slot] |= result.success
            out.terminated[slot], out.truncated[slot] = result.terminated, result.truncated
            out.write_metrics(slot, result.metrics)
            if slot in self._frames:
                self._frames[slot].append(env.human_view())
            if math.isfinite(result.reward):
                out.rewards[slot, j] = result.reward
            else:
                self._invalidate(slot, "reward")
            if out.ended[slot]:
                break
        self._observe(slot)

    def _observe(self, slot: int) -> None:
        row = self.envs[slot].observe()
        self._out.write(slot, row)
        if not row.is_finite():
            self._invalidate(slot, "observation")

    def _invalidate(self, slot: int, what: str) -> None:
        env = self.envs[slot]
        log.error("environment %d: %s is not finite, step %d, seed %s", self._ids[slot], what, env.elapsed, env.seed)
        self._out.invalid[slot] = True
