"""A worker process: several environments of any simulator, served over a socket pair.

Started by :mod:`rlft_envs.workers.link` as ``<python> -m rlft_envs.workers <file descriptor>``. It ends when it is told
to, when anything raises (after reporting it), and when its parent is gone, however that died.
"""

import faulthandler
import gc
import logging
import os
import select
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection

from rlft_envs.errors import EnvSetupError
from rlft_envs.slots import EnvSlots

PARENT_GONE = 3  # exit status


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
        hello = connection.recv()
        recorded = hello.pop("recorded")
        slots = EnvSlots(**hello)
        slots.record(recorded)
        if "torch" in sys.modules:
            import torch

            torch.set_num_threads(1)  # workers share the machine's cores; a thread pool in each only fights the others
        gc.freeze()  # what the simulators are made of stays to the end; every full collection would walk it again
        connection.send(("answer", slots.ready))
        while True:
            message = connection.recv()
            operation = message.pop("op")
            if operation == "close":
                slots.close()
                return 0
            connection.send(("answer", getattr(slots, operation)(**message)))
    except EnvSetupError as error:
        connection.send(("setup", str(error)))
        return 1
    except EOFError:
        return PARENT_GONE
    except Exception:
        connection.send(("fault", traceback.format_exc()))
        return 1


def _exit_with_parent(descriptor: int) -> None:
    """Wait, without reading, until the socket's other end is closed; then end the process, whatever it is doing."""
    hangup = select.poll()
    hangup.register(descriptor, 0)
    hangup.poll()
    os._exit(PARENT_GONE)


if __name__ == "__main__":
    sys.exit(main())
