"""A part of the rollout's environments that is decided and stepped together.

With two groups and a thread for their simulators, one group executes its chunk while the policy decides for the
other. What is computed, and in which batches, does not depend on whether they overlap; only when it is computed does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlft.rollout.observations import indices, put_rows
from rlft.seeding import seed_for
from rlft.types import ChunkStep, Observation, VecEnv


@dataclass(frozen=True)
class Executed:
    """What a group reports of one chunk.

    Attributes:
        step: the chunk's outcome.
        seconds: time inside the simulator, resets included.
    """

    step: ChunkStep
    seconds: float


class RolloutGroup:
    """n environments, and where their episodes stand.

    Args:
        env: the environments.
        first: the global index of the first one; random numbers are named by global indices.
        seed: the run's seed.
        executor: runs the simulator beside the caller; None: the caller waits for it.

    Attributes:
        ids: global indices of the environments, ``first .. first + n - 1``.
        obs: what the policy looks at next.
        episodes: (iteration that it began in, environment, number within that iteration) of the episode that each
            environment is in; names what stays the same for an episode. Read it where ``obs`` is read.
    """

    obs: Observation

    def __init__(self, env: VecEnv, first: int, seed: int, executor: Executor | None) -> None:
        self.env, self.seed = env, seed
        self.ids = range(first, first + env.spec.num_envs)
        self._executor = executor
        self._pending: Future[Any] | None = None
        self._episode = np.zeros(len(self.ids), dtype=np.int64)
        self.episodes = [(0, i, 0) for i in self.ids]
        self._iteration = 0
        self._started = False

    def begin(self, iteration: int, *, reset: bool) -> None:
        """Start a rollout: with new episodes, or where the last one stopped."""
        self._iteration = iteration
        self._episode[:] = 0
        if reset or not self._started:
            self._started = True
            self._submit(lambda: self._reset(list(range(len(self.ids)))))

    def observe(self) -> Observation:
        """The observation to decide on, once a reset that may still run is done."""
        if self._pending is not None:
            self.obs = self._take()
        return self.obs

    def send(self, actions: Any) -> None:
        """Execute a chunk, ``[n, A, d]`` in the form that the simulator takes; ended environments start anew."""
        self._submit(lambda: self._execute(actions))

    def receive(self) -> Executed:
        """The outcome of the chunk that was sent."""
        executed, self.obs = self._take()
        return executed

    def settle(self) -> None:
        """Wait until the simulator stands still, whatever came of it."""
        if self._pending is not None:
            self._pending.exception()
            self._pending = None

    def _execute(self, actions: Any) -> tuple[Executed, Observation]:
        started = time.perf_counter()
        step = self.env.step_chunk(actions)
        ended = indices(step.ended)
        following = put_rows(step.obs, ended, self._reset(ended)) if ended else step.obs
        return Executed(step, time.perf_counter() - started), following

    def _reset(self, rows: list[int]) -> Observation:
        seeds = [
            seed_for(self.seed, "rollout-episode", self._iteration, self.ids[i], int(self._episode[i])) for i in rows
        ]
        for i in rows:
            self.episodes[i] = (self._iteration, self.ids[i], int(self._episode[i]))
        self._episode[rows] += 1
        return self.env.reset(rows, seeds)

    def _submit(self, work: Callable[[], Any]) -> None:
        assert self._pending is None, "a group executes one thing at a time"
        if self._executor is not None:
            self._pending = self._executor.submit(work)
            return
        done: Future[Any] = Future()
        done.set_result(work())
        self._pending = done

    def _take(self) -> Any:
        assert self._pending is not None
        pending, self._pending = self._pending, None
        return pending.result()
