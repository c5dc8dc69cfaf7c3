"""A part of the rollout's environments that is decided and stepped together.

With two groups and a thread for their simulators, one group executes its chunk while the policy decides for the
other. What is computed, and in which batches, does not depend on whether they overlap; only when it is computed does.
"""

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlft.errors import RlftError
from rlft.placement import to_numpy
from rlft.rollout.observations import indices, on_host, put_rows
from rlft.seeding import seed_for
from rlft.types import Array, ChunkStep, Observation, VecEnv

Episode = tuple[int, int, int]  # see RolloutGroup.episodes


class NonFiniteActionError(RlftError):
    """The policy produced NaN or infinite actions; no simulator executed them."""

    exit_code = 3


@dataclass(frozen=True)
class Executed:
    """What a group reports of one chunk."""

    step: ChunkStep  # numbers on the host, the observation where it is; for an ended environment its true final one
    actions: np.ndarray  # float32 `[n, A, d]`, controller units, as sent
    episodes: list[Episode]  # which it belongs to
    seconds: float  # time inside the simulator, resets included


class RolloutGroup:
    """n environments, and where their episodes stand.

    Args:
        first: the global index of the first one; random numbers are named by global indices.
        executor: runs the simulator beside the caller; None: it runs where its outcome is asked for.
        sharing: how many environments, side by side in the whole rollout, start their n-th episode from the same seed.
    """

    obs: Observation  # what the policy looks at next
    ids: range  # global indices of the environments
    # (iteration that it began in, environment, number within that iteration) of the episode that each environment is
    # in, with the sharers' own number instead of the environment's; names what stays the same for an episode. Read it
    # where `obs` is read
    episodes: list[Episode]

    def __init__(self, env: VecEnv, first: int, seed: int, executor: Executor | None, *, sharing: int = 1) -> None:
        self.env, self.seed, self._executor, self._sharing = env, seed, executor, sharing
        self.ids = range(first, first + env.spec.num_envs)
        self._pending: Future[Any] | Callable[[], Any] | None = None  # what runs, or will when it is asked for
        self._episode = np.zeros(len(self.ids), dtype=np.int64)
        self.episodes = [(0, i, 0) for i in self.ids]
        self._iteration, self._started = 0, False

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

    def send(self, actions: Array) -> None:
        """Execute a chunk, ``[n, A, d]`` in the form that the simulator takes; ended environments start anew.

        Raises:
            NonFiniteActionError: the policy diverged; of actions on a GPU, :meth:`receive` raises it.
        """
        if isinstance(actions, np.ndarray):  # what is on a GPU is left to the simulator's check: nothing waits here
            self._check_finite(actions)
        self._submit(lambda: self._execute(actions))

    def receive(self) -> Executed:
        """The outcome of the chunk that was sent."""
        executed, self.obs = self._take()
        return executed

    def drain(self) -> None:
        """Wait until the simulator stands still, whatever came of it."""
        if isinstance(self._pending, Future):
            self._pending.exception()
        self._pending = None

    def _check_finite(self, actions: np.ndarray) -> None:
        if bad := [self.ids[row] for row in indices(~np.isfinite(actions).all(axis=(1, 2)))]:
            raise NonFiniteActionError(
                f"the policy produced non-finite actions for environments {bad}; the weights have diverged: "
                "resume an earlier checkpoint with a lower train.actor_optimizer.lr"
            )

    def _execute(self, actions: Array) -> tuple[Executed, Observation]:
        started = time.perf_counter()
        try:
            step = self.env.step_chunk(actions)
        except ValueError:
            self._check_finite(to_numpy(actions))
            raise
        step, sent = on_host(step, actions)
        episodes, ended = list(self.episodes), indices(step.ended)
        following = put_rows(step.obs, ended, self._reset(ended)) if ended else step.obs
        return Executed(step, sent, episodes, time.perf_counter() - started), following

    def _reset(self, rows: list[int]) -> Observation:
        for i in rows:
            self.episodes[i] = (self._iteration, self.ids[i] // self._sharing, int(self._episode[i]))
        self._episode[rows] += 1
        return self.env.reset(rows, [seed_for(self.seed, "rollout-episode", *self.episodes[i]) for i in rows])

    def _submit(self, work: Callable[[], Any]) -> None:
        assert self._pending is None, "a group executes one thing at a time"
        self._pending = work if self._executor is None else self._executor.submit(work)

    def _take(self) -> Any:
        assert self._pending is not None
        pending, self._pending = self._pending, None
        return pending.result() if isinstance(pending, Future) else pending()
