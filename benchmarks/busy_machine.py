"""Warm-up steps/s at the demo's size: threads that wait as :mod:`rlft.waiting` chooses, against libgomp's own way.

Each side is a process of its own, for libgomp reads its environment once. Measured on the machine as it is, and with a
busy Python loop beside for every core from before the sides start. They take turns; the one that waits does nothing.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from benchmarks.harness import Row, Settings, alternate
from rlft.waiting import ASLEEP, BUSY, SPINNING, busy_share

BUDGET_S = 75
SECONDS = {"quiet": 1.0, "busy": 3.0}  # of one measurement, at least; a step of a side that starves may take longer
GOALS = {"quiet": 0.97, "busy": 1.5}


def run(settings: Settings) -> Iterator[Row]:
    """A machine that does nothing else when the sides start, then one whose cores are all busy."""
    cores = len(os.sched_getaffinity(0))
    for case, loops in (("quiet", 0), ("busy", cores)):
        with busy_loops(loops):
            ours = ASLEEP if busy_share() > BUSY else {}
            mine, theirs = Side(ours, cores), Side({}, cores)
            try:
                mine.wait_ready()
                theirs.wait_ready()
                pairs = alternate(mine.steps(SECONDS[case]), theirs.steps(SECONDS[case]), settings.pairs)
            finally:
                mine.close()
                theirs.close()
        beside = f"{loops} busy loops beside" if loops else "nothing beside"
        yield pairs.row(
            "busy_machine",
            f"SFT of the demo's policy, B = 64, {cores} threads, {beside}",
            unit="steps/s",
            baseline="libgomp's own way of waiting",
            goal=GOALS[case],
            explanation="The load of the machine before the benchmark stands in bench.json; it has to be near 0.",
            facts={"cores": cores, "chosen": ", ".join("=".join(pair) for pair in ours.items()) or "libgomp's own way"},
        )


class Side:
    """A process that warms the demo's policy up.

    Args:
        waiting: how its idle threads wait: environment variables.
        threads: of torch.
    """

    def __init__(self, waiting: dict[str, str], threads: int) -> None:
        kept = {name: os.environ.pop(name) for name in SPINNING if name in os.environ}
        os.environ.update(waiting | {"OMP_NUM_THREADS": str(threads)})  # inherited
        try:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, threads), daemon=True)
            self._process.start()
        finally:
            for name in waiting:
                del os.environ[name]
            os.environ.update(kept)

    def wait_ready(self) -> None:
        """Wait until the policy is built."""
        self._connection.recv()

    def steps(self, seconds: float) -> Callable[[], float]:
        """Work for :func:`benchmarks.harness.alternate`: optimiser steps for so long, at least one."""

        def work() -> float:
            self._connection.send(seconds)
            return float(self._connection.recv())

        return work

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


@contextmanager
def busy_loops(n: int) -> Iterator[None]:
    """So many processes that only count."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _serve(connection: Connection, threads: int) -> None:
    import torch

    from benchmarks.sft_step import OurSide

    torch.set_num_threads(threads)
    side = OurSide("demo", expert_only=False, cached=False)
    side.step()
    connection.send("ready")
    while True:
        end, done = time.perf_counter() + connection.recv(), 0
        while done == 0 or time.perf_counter() < end:
            side.step()
            done += 1
        connection.send(done)
