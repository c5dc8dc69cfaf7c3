"""How idle threads of a CPU run wait. Imports no torch: libgomp, which torch loads, reads its environment once.

A thread that has done its share of a product waits for the others by spinning. On a quiet machine that is right: the
next product comes at once. Where other programs want the cores, it takes the core that its neighbour needs, and steps
take many times as long. Sleeping at once is right there, and on a quiet machine costs a third of the speed. So the way
is chosen by what else the machine does when a stage starts; load that comes later meets spinning threads.
``benchmarks/busy_machine.py`` measures both.
"""

import os

import psutil

from rlft.config.schema import RunConfig

SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}
BUSY = 0.5  # of the cores that this process may use
LOOK_S = 0.2  # a core's time is counted in hundredths of a second


def choose_waiting(cfg: RunConfig) -> None:
    """Set the way of waiting of a CPU placement, unless the user's environment says otherwise.

    For this process, before torch is loaded, and those that it starts. No number depends on it.
    """
    devices, said = {cfg.sim.device, cfg.model.device, cfg.buffer.device}, set(SPINNING) & set(os.environ)
    if devices == {"cpu"} and not said and busy_share() > BUSY:
        os.environ.update(ASLEEP)


def busy_share() -> float:
    """How much of the cores that this process may use others use now, 0..1."""
    percents, ours = psutil.cpu_percent(LOOK_S, percpu=True), os.sched_getaffinity(0)
    mine = [x for core, x in enumerate(percents) if core in ours] or percents  # a container may number them anew
    return sum(mine) / len(mine) / 100
