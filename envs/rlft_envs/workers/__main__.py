"""A worker process: several environments of any simulator, served over a socket pair.

Started by :mod:`rlft_envs.workers.link` as ``<python> -m rlft_envs.workers <file descriptor>``. It ends when it is told
to, when anything raises (after reporting it), and when its parent is gone, however that died.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import gc
import logging
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from rlft.types import DemoAttempt
from rlft_envs.arrays import EnvArrays, shared_arrays
from rlft_envs.errors import EnvSetupError
from rlft_envs.record import SIMULATOR_ERROR, SUCCESS, RecordSettings, package_versions, record
from rlft_envs.simulator import simulator_of
from rlft_envs.slots import EnvSlots
from rlft_envs.task import expert_name, make_expert
from rlft_envs.workers import protocol

PARENT_GONE = 3  # exit status

Answer = tuple[Mapping[str, Any], bytes]


def main() -> int:
    """Serve until told to close; returns the exit status."""
    descriptor = int(sys.argv[1])
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # the parent asks a hung worker where it is
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    os.dup2(2, 1)  # simulators print; their standard output is nobody's
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    threading.Thread(target=_exit_with_parent, args=(descriptor,), daemon=True).start()
    connection = Connection(descriptor)
    try:
        worker = Worker(**protocol.receive(connection)[0])
        protocol.send(connection, worker.ready)
        while True:
            message, _ = protocol.receive(connection)
            operation = message.pop("op")
            if operation == "close":
                worker.slots.close()
                return 0
            protocol.send(connection, *worker.operations[operation](**message))
    except EnvSetupError as error:
        protocol.send(connection, {"error": str(error), "kind": "setup"})
        return 1
    except EOFError:
        return PARENT_GONE
    except Exception:
        protocol.send(connection, {"error": traceback.format_exc(), "kind": "fault"})
        return 1


class Worker:
    """The environments, and what can be asked of them.

    Args:
        settings: see :class:`rlft.types.EnvSettings`.
        env_ids: which of the E environments these are; they follow each other.
        memory: descriptor of the memory shared with the parent; None where only demonstrations are wanted.
        recorded: slots whose frames are kept from the start.
        demos: how demonstrations are recorded; None where none are wanted.

    Attributes:
        ready: what the parent is told once the environments are built.
        operations: name -> what answers it, and the raw bytes that go with the answer.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        env_ids: list[int],
        memory: int | None,
        recorded: list[int],
        demos: Mapping[str, Any] | None,
    ) -> None:
        parsed = protocol.unpack_settings(settings)
        planner = expert_name(parsed) if demos is not None else ""  # refuses before a simulator is built
        self.slots = EnvSlots(parsed, env_ids)
        self._memory, self._rows = memory, slice(env_ids[0], env_ids[-1] + 1)
        if "torch" in sys.modules:
            # workers share the machine's cores; a thread pool in each only fights the others
            sys.modules["torch"].set_num_threads(1)
        self.slots.record(recorded)
        gc.freeze()  # what the simulators are made of stays to the end; every full collection would walk it again
        self.ready: dict[str, Any] = {"spec": dataclasses.asdict(self.slots.spec), "tasks": self.slots.tasks}
        if memory is not None:
            self.slots.arrays, self._actions, self._rewards = self._shared(0)
        if demos is not None:
            self._demos = RecordSettings(**demos)
            self.slots.reset([0], [0], [None])
            frozen = list(make_expert(self.slots.envs[0]).frozen_action_dims)
            self.ready["source"] = {"planner": planner, "versions": package_versions(simulator_of(parsed).packages), "frozen_action_dims": frozen}
        self.operations: dict[str, Callable[..., Answer]] = {
            "reset": self._reset,
            "step": self._step,
            "record": self._record,
            "frames": self._frames,
            "demonstrate": self._demonstrate,
        }

    def _shared(self, act_steps: int) -> tuple[EnvArrays, np.ndarray, np.ndarray]:
        """Our rows of the shared arrays, and of the actions and the rewards of a chunk."""
        assert self._memory is not None
        arrays, actions, rewards = shared_arrays(self._memory, self.slots.spec, act_steps)
        return arrays.part(self._rows), actions[self._rows], rewards[self._rows]

    def _reset(self, slots: list[int], seeds: list[int], episode_ids: list[int | None]) -> Answer:
        self.slots.reset(slots, seeds, episode_ids)
        return {"tasks": [self.slots.tasks[slot] for slot in slots]}, b""

    def _step(self, act_steps: int) -> Answer:
        if act_steps != self._actions.shape[1]:
            _, self._actions, self._rewards = self._shared(act_steps)
        self.slots.step_chunk(self._actions, self._rewards)
        return {"metrics": self.slots.arrays.metric_names}, b""

    def _record(self, slots: list[int]) -> Answer:
        self.slots.record(slots)
        return {}, b""

    def _frames(self, slot: int) -> Answer:
        frames = self.slots.take_frames(slot)
        return {"shape": frames.shape}, frames.tobytes()

    def _demonstrate(self, attempt: Mapping[str, int], file: str) -> Answer:
        """Make an attempt in slot 0; what it recorded is in the file before its outcome is told."""
        found = record(self.slots.envs[0], make_expert, DemoAttempt(**attempt), self._demos)
        if found.outcome == SIMULATOR_ERROR:
            self.slots.rebuild(0)
        if found.actions and (found.outcome == SUCCESS or self._demos.keep_failures):
            found.save(Path(file))
        return dataclasses.asdict(found.result()), b""


def _exit_with_parent(descriptor: int) -> None:
    """Wait, without reading, until the socket's other end is closed; then end the process, whatever it is doing."""
    hangup = select.poll()
    hangup.register(descriptor, 0)
    hangup.poll()
    os._exit(PARENT_GONE)


if __name__ == "__main__":
    sys.exit(main())
