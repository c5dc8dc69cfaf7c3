"""A VecEnv over worker processes: CPU simulators side by side, and a failure in one is not the end of the run."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlft.types import ChunkStep, EnvSettings, EnvSpec, Observation
from rlft_envs.arrays import ObservationArrays, Outcomes
from rlft_envs.checks import check_actions, check_env_ids, check_reset
from rlft_envs.errors import WorkerError
from rlft_envs.workers.link import WorkerFaultError, WorkerLink

log = logging.getLogger(__name__)


class WorkerPool:
    """E environments in ``settings.num_workers`` processes; one message per chunk and worker.

    A worker that dies, hangs or raises is named in the log and restarted. The episodes that ran in it are lost: their
    environments are reported ``invalid`` until they are reset. More than ``settings.max_restarts`` restarts of one
    worker end the run with a :class:`rlft_envs.errors.WorkerError`.
    """

    def __init__(self, settings: EnvSettings) -> None:
        self._timeout = settings.step_timeout_s
        self._first = settings.first_env
        self._max_restarts = settings.max_restarts
        E = settings.num_envs
        parts = np.array_split(np.arange(E), min(settings.num_workers, E))
        self._links = [WorkerLink(i, part.tolist(), settings) for i, part in enumerate(parts)]
        self._place = {env: (link, slot) for link in self._links for slot, env in enumerate(link.env_ids)}
        self._outcomes = Outcomes.fresh(E)
        self._started = np.zeros(E, dtype=bool)
        self._seeds = np.full(E, -1)
        self._steps = np.zeros(E, dtype=np.int64)
        try:
            for link in self._links:
                link.start()
            for link in self._links:
                self._wait_first_start(link)
        except BaseException:
            self.close()
            raise
        self._spec = self._links[0].spec
        self._tasks = [task for link in self._links for task in link.tasks]
        self._rows = ObservationArrays.private(self._spec, E)

    @property
    def spec(self) -> EnvSpec:
        """The facts about this environment."""
        return self._spec

    def reset(
        self, env_ids: Sequence[int], seeds: Sequence[int], episode_ids: Sequence[int] | None = None
    ) -> Observation:
        """See :meth:`rlft.types.VecEnv.reset`. A worker that fails is restarted, and the same seeds are tried again."""
        waiting: dict[int, dict[str, Any]] = {}
        for env, seed, episode_id in zip(env_ids, seeds, check_reset(env_ids, seeds, episode_ids, self._spec)):
            link, slot = self._place[env]
            message = waiting.setdefault(link.index, {"op": "reset", "slots": [], "seeds": [], "episode_ids": []})
            message["slots"].append(slot)
            message["seeds"].append(int(seed))
            message["episode_ids"].append(episode_id)
            self._seeds[env], self._steps[env] = seed, 0
            self._started[env] = False  # not lost with a worker that dies now: it will be tried again
        while waiting:
            for index, answer in self._exchange(waiting).items():
                self._take_reset(self._links[index], waiting.pop(index)["slots"], answer)
        return self._rows.observation(env_ids, self._tasks)

    def step_chunk(self, actions: np.ndarray) -> ChunkStep:
        """See :meth:`rlft.types.VecEnv.step_chunk`."""
        actions = check_actions(actions, self._spec)
        if not self._started.all():
            raise RuntimeError(f"environments {np.flatnonzero(~self._started).tolist()} are stepped before a reset")
        running = ~self._outcomes.ended
        self._outcomes.begin_chunk(actions.shape[1])
        messages = {
            link.index: {"op": "step", "actions": actions[link.env_ids].tolist()}
            for link in self._links
            if running[link.env_ids].any()
        }
        for index, answer in self._exchange(messages).items():
            link = self._links[index]
            slots = [slot for slot, env in enumerate(link.env_ids) if running[env]]
            envs = [link.env_ids[slot] for slot in slots]
            self._outcomes.take(answer, slots, envs)
            self._rows.take(link.rows, slots, envs)
        self._steps += self._outcomes.n_executed
        return self._outcomes.chunk_step(self._rows.observation(range(self._spec.num_envs), self._tasks))

    def record(self, env_ids: Sequence[int]) -> None:
        """See :meth:`rlft.types.VecEnv.record`."""
        check_env_ids(env_ids, self._spec.num_envs)
        messages = {}
        for link in self._links:
            slots = {slot for env in env_ids for owner, slot in [self._place[env]] if owner is link}
            if slots != link.record:
                link.record = slots  # a worker that is restarted learns it when it starts
                messages[link.index] = {"op": "record", "slots": sorted(slots)}
        self._exchange(messages)

    def take_frames(self, env_id: int) -> np.ndarray:
        """See :meth:`rlft.types.VecEnv.take_frames`; frames in a worker that failed are lost."""
        check_env_ids([env_id], self._spec.num_envs)
        link, slot = self._place[env_id]
        answer = self._exchange({link.index: {"op": "frames", "slot": slot}})
        try:
            if answer:
                data = link.receive_bytes(time.monotonic() + self._timeout)
                return np.frombuffer(data, np.uint8).reshape(answer[link.index]["shape"]).copy()
        except WorkerFaultError as fault:
            self._restart(link, fault, "frames")
        return np.zeros((0, 0, 0, 3), np.uint8)

    def close(self) -> None:
        """End all workers; may be called twice."""
        for link in self._links:
            link.close()

    def _take_reset(self, link: WorkerLink, slots: list[int], answer: Mapping[str, Any]) -> None:
        envs = [link.env_ids[slot] for slot in slots]
        self._rows.take(link.rows, slots, envs)
        self._started[envs] = True
        for slot, env, task in zip(slots, envs, answer["tasks"], strict=True):
            self._outcomes.begin_episode(env)
            self._outcomes.invalid[env] = slot in answer["invalid"]
            self._tasks[env] = task

    def _exchange(self, messages: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
        """Send each worker its message, then gather the answers; a worker that fails has none, and is restarted."""
        failed: dict[int, WorkerFaultError] = {}
        for index, message in messages.items():
            try:
                self._links[index].send(message)
            except WorkerFaultError as fault:
                failed[index] = fault
        deadline = time.monotonic() + self._timeout
        answers = {}
        for index in messages:
            if index in failed:
                continue
            try:
                answers[index] = self._links[index].receive(deadline)
            except WorkerFaultError as fault:
                failed[index] = fault
        for index, failure in failed.items():
            self._restart(self._links[index], failure, str(messages[index]["op"]))
        return answers

    def _restart(self, link: WorkerLink, fault: WorkerFaultError, operation: str) -> None:
        """Name the failure, discard the episodes that ran in the worker, and start it again without waiting for it."""
        envs = np.asarray(link.env_ids)
        what = (
            f"worker {link.index} {fault.how} in {operation}, envs {[self._first + i for i in link.env_ids]}, "
            f"seeds {self._seeds[envs].tolist()}, episode steps {self._steps[envs].tolist()}\n{fault.details}"
        )
        link.kill()
        lost = envs[self._started[envs] & ~self._outcomes.ended[envs]]
        self._outcomes.invalid[lost] = True
        if link.restarts >= self._max_restarts:
            self.close()
            raise WorkerError(f"{what.rstrip()}\nit was restarted {link.restarts} times (sim.max_restarts)") from None
        link.restarts += 1
        log.error("%s\nrestarting it (%d of %d)", what.rstrip(), link.restarts, self._max_restarts)
        link.start()

    def _wait_first_start(self, link: WorkerLink) -> None:
        while True:
            try:
                link.wait_ready()
                return
            except WorkerFaultError as fault:
                self._restart(link, fault, "start")
