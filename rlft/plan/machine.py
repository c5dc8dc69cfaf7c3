"""What a machine has, and the plan of a stage on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rlft.config.schema import RunConfig
from rlft.plan.memory import HOST, Assumed, Plan, device_name, plan_rl, plan_sft

GIB = 2**30
RESERVE = 0.05  # of a device, for what an allocator cannot use
MEMINFO = Path("/proc/meminfo")
DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # of Linux, and of Linux inside Windows
SHARE = 0.6  # of what is free: as much may prefixes take (rlft.rollout.store, rlft.learn.prefix_cache)
STAGES = ("train_rl", "train_sft")


@dataclass(frozen=True)
class Capacity:
    """What a device has to give.

    Attributes:
        nbytes: bytes; None where it is not known.
        source: where the number is from.
    """

    nbytes: int | None
    source: str


@dataclass(frozen=True)
class Machine:
    """Where a run is planned.

    Attributes:
        capacity: of every device that the settings name, and of the host.
        assumed: what the settings do not say.
    """

    capacity: Mapping[str, Capacity]
    assumed: Assumed

    def plan(self, stage: str, cfg: RunConfig) -> Plan:
        """Plan a stage, deciding what its settings leave open.

        Args:
            stage: one of :data:`STAGES`.
            cfg: settings.
        """
        if stage == "train_sft":
            return self._warm_up(cfg)
        if cfg.buffer.store != "auto":
            return plan_rl(cfg, self.assumed, cfg.buffer.store)
        if not cfg.model.train_vlm:
            plan = plan_rl(cfg, self.assumed, "prefix")
            device = device_name(cfg.buffer.device)
            if self._leaves_room(plan.used[device]["buffer"], plan, device):
                return plan
        return plan_rl(cfg, self.assumed, "images")

    def fits(self, plan: Plan, device: str) -> bool | None:
        """Whether a device holds its part; None where nobody knows what it has."""
        room = self.capacity[device].nbytes
        return None if room is None else plan.total(device) <= (1.0 - RESERVE) * room

    def overfull(self, plan: Plan) -> list[str]:
        """The devices that do not hold their part."""
        return [device for device in plan.used if self.fits(plan, device) is False]

    def _warm_up(self, cfg: RunConfig) -> Plan:
        changing = cfg.domain_randomization is not None and cfg.domain_randomization.sft
        if changing or not cfg.sft.train_expert_only or cfg.sft.cache_prefix is not None:
            return plan_sft(cfg, self.assumed, cached=cfg.sft.train_expert_only and cfg.sft.cache_prefix is True)
        plan, device = plan_sft(cfg, self.assumed, cached=True), device_name(cfg.model.device)
        if self._leaves_room(plan.kept_prefixes, plan, device):
            return plan
        return plan_sft(cfg, self.assumed, cached=False)

    def _leaves_room(self, prefixes: int, plan: Plan, device: str) -> bool:
        """What auto asks, when the environments and the weights are there: the prefixes take their share at most."""
        room = self.capacity[device].nbytes
        there = sum(plan.used[device][name] for name in ("weights", "simulation", "libraries"))
        return room is None or prefixes <= SHARE * (room - there)


def measure(devices: Iterable[str], *, gpu_gib: float | None, host_gib: float | None) -> dict[str, Capacity]:
    """What every device has to give: as said, or else as this machine measures.

    Args:
        devices: names.
        gpu_gib: of every GPU, GiB; None: what is free where it is here, and unknown elsewhere.
        host_gib: of the host, GiB; None: what is available now.
    """
    return {device: _measure(device, host_gib if device == HOST else gpu_gib) for device in devices}


def _measure(device: str, said: float | None) -> Capacity:
    if said is not None:
        return Capacity(int(said * GIB), "as given")
    if device == HOST:
        line = next(x for x in MEMINFO.read_text(encoding="ascii").splitlines() if x.startswith("MemAvailable:"))
        return Capacity(int(line.split()[1]) * 1024, "free now")
    if any(path.exists() for path in DRIVERS):
        import torch  # takes seconds

        from rlft.memory import free_bytes

        gpu = torch.device(device)
        if gpu.index < torch.cuda.device_count():
            return Capacity(free_bytes(gpu), "free now")
    return Capacity(None, "not here")
