"""The process that records demonstrations: ``python -m rlft_tasks.planners.worker <file descriptor>``.

It speaks over one inherited socket. First the parent sends the environment settings and the fields of
:class:`~rlft_envs.record.RecordSettings`; the worker answers with a :class:`rlft.types.DemoSource`, or with a
text that says why no attempt can be made. Then every :class:`rlft.types.DemoAttempt` is answered by a
:class:`rlft.types.DemoRecording`. The end of the stream ends the process.
"""

from __future__ import annotations

import logging
import sys
from multiprocessing.connection import Connection

from rlft.types import DemoAttempt, DemoSource, EnvSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.record import RecordSettings, record
from rlft_envs.simulator import build_single_env, simulator_of
from rlft_envs.task import expert_name, expert_of


def serve(connection: Connection) -> None:
    """Answer until the stream ends."""
    settings: EnvSettings
    settings, how = connection.recv()
    record_settings = RecordSettings(**how)
    try:
        planner, make_expert = expert_name(settings), expert_of(settings)
        env = build_single_env(settings)
        env.reset(0)
        still = make_expert(env).still_dims
    except EnvSetupError as error:
        connection.send(str(error))
        return
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # one worker per core: more threads only fight
    connection.send(DemoSource(env.spec, planner, simulator_of(settings).versions(), still))
    while True:
        attempt: DemoAttempt = connection.recv()
        found = record(env, make_expert, attempt, record_settings)
        if found.outcome == "simulator_error":  # its state is unknown now
            env.close()
            env = build_single_env(settings)
        connection.send(found)


def main(descriptor: int) -> None:
    """Serve the socket with this descriptor."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    with Connection(descriptor) as connection:
        try:
            serve(connection)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return  # the parent has finished, or is gone


if __name__ == "__main__":
    main(int(sys.argv[1]))
