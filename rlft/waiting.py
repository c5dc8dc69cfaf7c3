"""How idle threads of a CPU run wait. Imports no torch: libgomp, which torch loads, reads its environment once."""

from __future__ import annotations

import os

from rlft.config.schema import RunConfig

SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def wait_asleep(cfg: RunConfig) -> None:
    """Let the idle threads of a CPU placement sleep instead of spin, unless the user's environment says otherwise.

    A spinning thread that waits for its neighbours takes the core that a neighbour needs as soon as anything else runs
    on the machine; ``benchmarks/busy_machine.py`` measures both ways, quiet and busy. Sets ``OMP_WAIT_POLICY`` for this
    process and those that it starts.
    """
    if {cfg.sim.device, cfg.model.device, cfg.buffer.device} != {"cpu"}:
        return
    if not any(name in os.environ for name in SPINNING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
