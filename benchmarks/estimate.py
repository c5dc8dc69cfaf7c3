"""``python -m benchmarks.estimate NAME``: how long a pipeline will take here, as a range, after a short measurement.

The range comes from the kept runs of that name (``benchmarks/results/NAME_seed*.json``, their longest and shortest
time) and from how much more processor time than there a fixed piece of work takes here, on as many cores at once as a
run keeps busy. Its upper end has a margin: every stage has to start, and rendering need not be slower by the same
factor. Work that other programs make wait is no part of it, for nobody knows how long they will run; it is mentioned.
"""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness import slowness
from benchmarks.table import read_results

MARGIN = 1.6
CORES = 2  # of the kept runs
BUSY = 1.5  # wall time over processor time


def minutes(runs: Mapping[str, Mapping[str, Any]], slower: float) -> tuple[float, float]:
    """The range to expect.

    Args:
        runs: kept runs; one that was resumed does not count, for its time is that of its last part.
        slower: how many times longer than on the machine of those runs work takes.

    Raises:
        ValueError: no run counts.
    """
    whole = [
        run["seconds"]["total"] / 60 for run in runs.values() if not any("resume=" in line for line in run["command"])
    ]
    if not whole:
        raise ValueError(f"none of {sorted(runs)} is a whole run")
    return slower * min(whole), MARGIN * slower * max(whole)


def measure() -> tuple[float, float]:
    """How many times longer work takes here when as many cores work as a run keeps busy; more where it has fewer.

    Returns:
        by processor time; and wall time over processor time.
    """
    cores = min(CORES, len(os.sched_getaffinity(0)))
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        wall, processor = zip(*pool.map(_slowness, range(cores), chunksize=1))
    return max(processor) * CORES / cores, max(w / p for w, p in zip(wall, processor))


def _slowness(_: int) -> tuple[float, float]:
    return slowness(rounds=3)


def main(argv: Sequence[str]) -> int:
    """Print one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimate")
    parser.add_argument("name", help="demo or put_on_plate: kept runs start with it")
    name = parser.parse_args(argv).name
    runs = {key: run for key, run in read_results().items() if key.startswith(f"{name}_seed")}
    slower, waiting = measure()
    low, high = minutes(runs, slower)
    sys.stderr.write(
        f"expect {low:.0f} to {high:.0f} minutes: work takes {slower:.1f} times as long as on the cores of the kept "
        "runs\n"
    )
    if waiting > BUSY:
        sys.stderr.write(f"longer, while other programs let it wait as now ({waiting:.1f} times its own time)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
