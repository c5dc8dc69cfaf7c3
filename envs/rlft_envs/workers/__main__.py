"""A worker process: several environments of any simulator, served over a socket pair.

Started by :mod:`rlft_envs.workers.link` as ``<python> -m rlft_envs.workers --connection FD --memory FD``. It ends when
it is told to, when anything raises (after reporting it), and when its parent is gone, however that died.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import mmap
import os
import select
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from rlft_envs.arrays import ObservationArrays
from rlft_envs.errors import EnvSetupError
from rlft_envs.group import EnvGroup
from rlft_envs.workers import protocol

PARENT_GONE = 3  # exit status


def main() -> int:
    """Serve until told to close; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connection", type=int, required=True, help="inherited socket descriptor")
    parser.add_argument("--memory", type=int, required=True, help="inherited shared-memory descriptor")
    arguments = parser.parse_args()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # the parent asks a hung worker where it is
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    os.dup2(2, 1)  # simulators print; their standard output is nobody's
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    threading.Thread(target=_exit_with_parent, args=(arguments.connection,), daemon=True).start()
    connection = Connection(arguments.connection)
    try:
        group = _build(connection, arguments.memory)
        _serve(connection, group)
    except EnvSetupError as error:
        protocol.send(connection, {"error": str(error), "kind": "setup"})
        return 1
    except EOFError:
        return PARENT_GONE
    except Exception:
        protocol.send(connection, {"error": traceback.format_exc(), "kind": "fault"})
        return 1
    group.close()
    return 0


def _build(connection: Connection, memory: int) -> EnvGroup:
    """Read the first message, build the environments, lay out the shared memory and report what was built."""
    hello = protocol.receive(connection)
    group = EnvGroup(protocol.unpack_settings(hello["settings"]), hello["env_ids"])
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)  # workers share the machine's cores; a thread pool in each only fights the others
    group.record(hello["record"])
    gc.freeze()  # what the simulators are made of stays to the end; every full collection would walk it again
    n = len(hello["env_ids"])
    size = ObservationArrays.nbytes(group.spec, n)
    if os.fstat(memory).st_size < size:
        os.ftruncate(memory, size)
    group.rows = ObservationArrays.over(mmap.mmap(memory, size), group.spec, n)
    ready = {"spec": protocol.pack_spec(group.spec), "tasks": group.tasks}
    protocol.send(connection, ready)
    return group


def _serve(connection: Connection, group: EnvGroup) -> None:
    """Answer messages until ``close``."""
    while True:
        message = protocol.receive(connection)
        operation = message["op"]
        if operation == "close":
            return
        if operation == "frames":
            frames = group.take_frames(message["slot"])
            protocol.send(connection, {"shape": frames.shape})
            connection.send_bytes(frames.tobytes())
            continue
        protocol.send(connection, _answer(group, operation, message))


def _answer(group: EnvGroup, operation: str, message: dict[str, Any]) -> dict[str, Any]:
    if operation == "step":
        group.step_chunk(np.asarray(message["actions"], dtype=np.float32))
        return group.outcomes.to_json()
    if operation == "reset":
        group.reset(message["slots"], message["seeds"], message["episode_ids"])
        invalid = [slot for slot in message["slots"] if group.outcomes.invalid[slot]]
        return {"invalid": invalid, "tasks": [group.tasks[slot] for slot in message["slots"]]}
    if operation == "record":
        group.record(message["slots"])
        return {}
    raise ValueError(f"message {operation!r} is not known")


def _exit_with_parent(descriptor: int) -> None:
    """Wait, without reading, until the socket's other end is closed; then end the process, whatever it is doing."""
    hangup = select.poll()
    hangup.register(descriptor, 0)
    hangup.poll()
    os._exit(PARENT_GONE)


if __name__ == "__main__":
    sys.exit(main())
