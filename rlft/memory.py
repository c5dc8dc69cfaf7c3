"""How much memory a device has to give, measured."""

from __future__ import annotations

from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
SHARE = 0.6  # of the free memory, for stored prefixes: gradients, optimiser and activations are still to come


def free_bytes(device: torch.device) -> int:
    """What a device could still hold, bytes: the driver's figure, or what the kernel calls available (Linux only)."""
    if torch.get_device_module(device) is torch.cuda:
        return int(torch.cuda.mem_get_info(device)[0])
    line = next(line for line in MEMINFO.read_text(encoding="ascii").splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def gigabytes(count: float) -> str:
    """Bytes for a person to read, in 10^9 bytes."""
    return f"{count / 1e9:.2f} GB"
