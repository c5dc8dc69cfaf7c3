"""A collection worker without a simulator: what it does depends on the attempt's number, as a test asks for.

``python -m helpers.demo_worker <file descriptor>``; ``make_kwargs`` of the environment settings hold

* ``fail``: attempt numbers that do not succeed;
* ``die``: attempt number -> how often the process dies on it; ``marks`` is a directory to count in;
* ``hang``: the same for going silent;
* ``refuse``: a text that is answered instead of a greeting;
* ``slow``: seconds per attempt.
"""

import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from rlft.types import DemoRecording, DemoSource, EnvSpec


def happens(what, number, script):
    times = {int(k): v for k, v in script.get(what, {}).items()}.get(number, 0)
    marks = Path(script["marks"]) if times else None
    done = len(list(marks.glob(f"{what}-{number}-*"))) if marks else 0
    if done < times:
        (marks / f"{what}-{number}-{done}").touch()
    return done < times


def recording(attempt, script):
    rng = np.random.default_rng(attempt.seed)
    steps = int(rng.integers(2, 6))
    failed = attempt.number in script.get("fail", ())
    return DemoRecording(
        attempt,
        "executed_not_solved" if failed else "success",
        "by script" if failed else "",
        None if failed else steps,
        0.01,
        {"cam": list(rng.integers(0, 255, (steps, 8, 8, 3), dtype=np.uint8))},
        list(rng.normal(size=(steps, 2)).astype(np.float32)),
        list(rng.normal(size=(steps, 3)).astype(np.float32)),
        instruction="count to three",
    )


def main():
    with Connection(int(sys.argv[1])) as connection:
        settings, _ = connection.recv()
        script = settings.make_kwargs
        if "refuse" in script:
            connection.send(script["refuse"])
            return
        if "stillborn" in script:
            os._exit(9)
        spec = EnvSpec(settings.env_id, 1, (-1.0,) * 3, (1.0,) * 3, 2, settings.cameras, "delta", 20.0, 400)
        connection.send(DemoSource(spec, "scripted", {"script": "1"}, (2,)))
        while True:
            try:
                attempt = connection.recv()
            except EOFError:
                return
            if happens("die", attempt.number, script):
                os._exit(7)
            if happens("hang", attempt.number, script):
                time.sleep(60)
            time.sleep(script.get("slow", 0.0))
            connection.send(recording(attempt, script))


if __name__ == "__main__":
    main()
