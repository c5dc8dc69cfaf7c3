"""A VecEnv of CPU simulators: side by side in worker processes, or one after the other in this one."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlft.types import ChunkStep, EnvSettings, Observation, map_rows
from rlft_envs.arrays import shared_step
from rlft_envs.checks import check_actions, check_env_ids, check_reset
from rlft_envs.errors import WorkerError
from rlft_envs.slots import Ready
from rlft_envs.workers.link import LocalLink, WorkerFaultError, WorkerLink

log = logging.getLogger(__name__)


class WorkerPool:
    """E environments in ``settings.num_workers`` processes, or in this process where that is 0.

    One message per chunk and worker; numbers lie in memory that all of them share. A worker that dies, hangs or raises
    is named in the log and restarted. The episodes that ran in it are lost: their environments are reported ``invalid``
    until they are reset. More than ``settings.max_restarts`` restarts of one worker end the run with a
    :class:`rlft_envs.errors.WorkerError`.
    """

    def __init__(self, settings: EnvSettings) -> None:
        E = settings.num_envs
        self._first, self._max_restarts = settings.first_env, settings.max_restarts
        # Anonymous memory by descriptor: unlike a named segment it cannot outlive a killed parent.
        self._memory: int | None = os.memfd_create("rlft-envs")
        self._links: Sequence[WorkerLink | LocalLink] = []
        self._seeds = np.full(E, -1)  # of the last episode; -1 before the first
        self._steps = np.zeros(E, dtype=np.int64)
        self._running = np.zeros(E, dtype=bool)  # an episode that would be lost with its worker
        try:
            if settings.num_workers:
                parts = np.array_split(np.arange(E), min(settings.num_workers, E))
                links = [WorkerLink(i, settings, part.tolist(), self._memory) for i, part in enumerate(parts)]
                self._links = links
                for link in links:
                    link.start()
            else:
                self._links = [LocalLink(settings, range(E), self._memory)]
            ready = [self._wait_first_start(link) for link in self._links]
        except BaseException:
            self.close()
            raise
        self._place = {env: (link, slot) for link in self._links for slot, env in enumerate(link.env_ids)}
        self.spec = ready[0].spec
        self._out = shared_step(self._memory, self.spec, 0)
        self._out.obs.task = [task for one in ready for task in one.tasks]

    def reset(
        self, env_ids: Sequence[int], seeds: Sequence[int], configuration_ids: Sequence[int] | None = None
    ) -> Observation:
        """See :meth:`rlft.types.VecEnv.reset`. A worker that fails is restarted, and the same seeds are tried again."""
        numbers, ids = check_reset(env_ids, seeds, configuration_ids, self.spec), list(env_ids)
        waiting: dict[int, dict[str, Any]] = {}
        for env, seed, configuration_id in zip(ids, seeds, numbers):
            link, slot = self._place[env]
            message = waiting.setdefault(link.index, {"op": "reset", "starts": []})
            message["starts"].append((slot, int(seed), configuration_id))
        self._seeds[ids], self._steps[ids] = seeds, 0
        self._running[ids] = False  # not lost with a worker that dies now: it will be tried again
        while waiting:
            for index, tasks in self._exchange(waiting).items():
                for (slot, *_), task in zip(waiting.pop(index)["starts"], tasks, strict=True):
                    env = self._links[index].env_ids[slot]
                    self._running[env], self._out.obs.task[env] = not self._out.invalid[env], task
        return map_rows(lambda values: values[ids], self._out.obs)

    def step_chunk(self, actions: np.ndarray) -> ChunkStep:
        """See :meth:`rlft.types.VecEnv.step_chunk`."""
        actions = np.asarray(actions, dtype=np.float32)
        check_actions(actions, self.spec)
        if (self._seeds < 0).any():
            raise RuntimeError(f"environments {np.flatnonzero(self._seeds < 0).tolist()} are stepped before a reset")
        if actions.shape[1] != self._out.actions.shape[1]:
            assert self._memory is not None
            before, self._out = self._out, shared_step(self._memory, self.spec, actions.shape[1])
            self._out.obs.task = before.obs.task
            self._out.name_metrics(before.metrics)
        self._out.actions[:], self._out.rewards[:], self._out.n_executed[:] = actions, 0.0, 0
        message = {"op": "step", "act_steps": actions.shape[1]}
        stepped = {link.index: message for link in self._links if self._running[link.env_ids].any()}
        for index, metrics in self._exchange(stepped).items():
            envs = self._links[index].env_ids
            self._out.name_metrics(metrics)
            self._running[envs] &= ~self._out.ended[envs]
        self._steps += self._out.n_executed
        return self._out.copy()

    def record(self, env_ids: Sequence[int]) -> None:
        """See :meth:`rlft.types.VecEnv.record`."""
        check_env_ids(env_ids, self.spec.num_envs)
        messages = {}
        for link in self._links:
            slots = sorted(slot for env in env_ids for owner, slot in [self._place[env]] if owner is link)
            if slots != link.recorded:
                link.recorded = slots  # a worker that is restarted learns it when it starts
                messages[link.index] = {"op": "record", "slots": slots}
        self._exchange(messages)

    def take_frames(self, env_id: int) -> np.ndarray:
        """See :meth:`rlft.types.VecEnv.take_frames`; frames in a worker that failed are lost."""
        check_env_ids([env_id], self.spec.num_envs)
        link, slot = self._place[env_id]
        frames = self._exchange({link.index: {"op": "take_frames", "slot": slot}}).get(link.index)
        return np.stack(frames) if frames else np.zeros((0, 0, 0, 3), np.uint8)

    def close(self) -> None:
        """End all workers; may be called twice."""
        for link in self._links:
            link.close()
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None

    def _exchange(self, messages: Mapping[int, Mapping[str, Any]]) -> dict[int, Any]:
        """Send each worker its message, then gather the answers; a worker that fails has none, and is restarted."""
        answers, failed = {}, {}
        for index, message in messages.items():
            self._links[index].send(message)
        for index in messages:
            try:
                answers[index] = self._links[index].receive()
            except WorkerFaultError as fault:
                failed[index] = fault
        for index, failure in failed.items():
            self._restart(self._links[index], failure, str(messages[index]["op"]))
        return answers

    def _restart(self, link: WorkerLink | LocalLink, fault: WorkerFaultError, operation: str) -> None:
        """Name the failure, discard the episodes that ran in the worker, and start it again without waiting for it."""
        assert isinstance(link, WorkerLink)  # what fails in this process is raised
        link.kill()
        envs = np.asarray(link.env_ids)
        what = (
            f"worker {link.index} {fault.how} in {operation}, envs {[self._first + i for i in link.env_ids]}, "
            f"seeds {self._seeds[envs].tolist()}, episode steps {self._steps[envs].tolist()}\n{fault.details}"
        )
        lost = envs[self._running[envs]]
        if len(lost):  # the worker may have died in the middle of writing what came of them
            self._out.clear(lost)
            self._out.invalid[lost], self._out.rewards[lost], self._running[lost] = True, 0.0, False
        if link.restarts >= self._max_restarts:
            self.close()
            raise WorkerError(f"{what.rstrip()}\nit was restarted {link.restarts} times (sim.max_restarts)") from None
        link.restarts += 1
        log.error("%s\nrestarting it (%d of %d)", what.rstrip(), link.restarts, self._max_restarts)
        link.start()

    def _wait_first_start(self, link: WorkerLink | LocalLink) -> Ready:
        while True:
            try:
                return link.wait_ready()
            except WorkerFaultError as fault:
                self._restart(link, fault, "start")
