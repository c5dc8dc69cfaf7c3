"""How idle threads of a CPU run wait. Imports no torch: libgomp, which torch loads, reads its environment once.

A thread that has done its share of a product waits for the others by spinning. On a quiet machine that is right: the
next product comes at once. Where other programs want the cores, it takes the core that its neighbour needs, and steps
take many times as long. Sleeping at once is right there, and on a quiet machine costs a third of the speed. So the way
is chosen by what else the machine does when a stage starts; load that comes later meets spinning threads.
``benchmarks/busy_machine.py`` measures both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from rlft.config.schema import RunConfig

SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}
BUSY = 0.5  # of the cores that this process may use
LOOK_S = 0.2  # two measurements so far apart; a core's time is counted in hundredths of a second
STAT = Path("/proc/stat")


def choose_waiting(cfg: RunConfig) -> None:
    """Set the way of waiting of a CPU placement, unless the user's environment says otherwise.

    For this process, before torch is loaded, and those that it starts. No number depends on it.
    """
    if {cfg.sim.device, cfg.model.device, cfg.buffer.device} != {"cpu"}:
        return
    if not any(name in os.environ for name in SPINNING):
        os.environ.update(waiting(busy_share()))


def waiting(busy: float) -> Mapping[str, str]:
    """The environment variables for a machine of which others use the share ``busy``; none: libgomp's own way."""
    return ASLEEP if busy > BUSY else {}


def busy_share() -> float:
    """How much of the cores that this process may use others use now, 0..1; 0 where the system does not say."""
    if not STAT.is_file():
        return 0.0
    before = _core_times()
    time.sleep(LOOK_S)
    busy, total = (after - was for after, was in zip(_core_times(), before, strict=True))
    return busy / total if total else 0.0


def _core_times() -> tuple[int, int]:
    """Busy and total time of those cores since the machine started, in hundredths of a second."""
    mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    fields = [line.split() for line in STAT.read_text(encoding="ascii").splitlines()]
    # user nice system idle iowait irq softirq steal; guests are counted in user and nice
    times = [[int(value) for value in row[1:9]] for row in fields if row[0] in mine]
    total, idle = sum(map(sum, times)), sum(row[3] + row[4] for row in times)
    return total - idle, total
