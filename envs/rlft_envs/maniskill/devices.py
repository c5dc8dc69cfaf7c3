"""Which device simulates, which one renders, and whether one can. Knows the settings only; imports no simulator."""

import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rlft.types import EnvSettings
from rlft_envs.errors import EnvSetupError

if TYPE_CHECKING:
    import torch

GPU_NAMES = ("gpu", "cuda", "sapien_cuda")  # what ManiSkill calls a rendering GPU, each also with ":N"


def physics_device(settings: EnvSettings) -> str:
    """``physx_cpu``, or ``physx_cuda:N``: always with the index, since "cuda" would be whichever comes first."""
    return "physx_cpu" if (gpu := _gpu(settings)) is None else f"physx_cuda:{gpu}"


def render_device(settings: EnvSettings) -> str:
    """``sapien_cuda:N``, ``sapien_cpu``, ``none`` (0.3 GB less; the default without cameras), or what was given.

    GPU physics renders on its own GPU: the renderer reads the poses from its memory. With CPU physics the default is
    the first GPU where torch sees one, else the CPU. Nothing falls back later: a GPU that cannot render is an error.
    """
    gpu, asked = _gpu(settings), settings.render_backend
    if asked is None:
        if not settings.cameras:
            return "none"
        if gpu is not None:
            return f"sapien_cuda:{gpu}"
        import torch

        return "sapien_cuda:0" if torch.cuda.device_count() else "sapien_cpu"
    name, _, index = asked.partition(":")
    fits = index in ("", str(gpu)) if name in GPU_NAMES else name == "none" and not settings.cameras
    if gpu is not None and not fits:
        where = f"GPU physics on sim.device=cuda:{gpu} renders on that GPU"
        raise EnvSetupError(f"sim.render_backend = {asked!r}, but {where}; leave sim.render_backend out")
    return f"sapien_cuda:{index or gpu or 0}" if name in GPU_NAMES else asked


def on_gpu(device: "torch.device") -> AbstractContextManager[object]:
    """Inside, a GPU is torch's current one, which is the one that ManiSkill synchronises; a CPU changes nothing.

    Nor does a GPU that is not there: what builds the simulation refuses it in words of its own.
    """
    import torch

    there = device.type == "cuda" and torch.cuda.is_available()
    return torch.cuda.device(device) if there else nullcontext()


def _gpu(settings: EnvSettings) -> int | None:
    """The index of the GPU that runs the physics; None for CPU physics."""
    if settings.sim_backend not in ("cpu", "gpu"):
        raise EnvSetupError(f"sim.backend = {settings.sim_backend!r}; allowed: cpu, gpu")
    if settings.sim_backend == "cpu":
        return None
    found = re.fullmatch(r"cuda(?::(\d+))?", settings.sim_device)
    if found is None:
        wrong = f"sim.device = {settings.sim_device!r} runs no GPU physics (sim.backend=gpu)"
        raise EnvSetupError(f"{wrong}; name a GPU, such as cuda:0")
    return int(found[1] or 0)


def check_vulkan() -> None:
    """EnvSetupError where no Vulkan driver is registered: SAPIEN's own failure comes late and is unclear.

    ManiSkill's tasks paint their objects through the renderer, so they need a driver even where no camera is rendered.
    """
    if not sys.platform.startswith("linux"):
        return
    manifests, source = _manifests()
    if not any(path.is_file() for path in manifests):
        raise EnvSetupError(
            f"no Vulkan driver found ({source}); ManiSkill needs one, even without cameras. Install it: on Debian and "
            "Ubuntu `apt-get install libvulkan1 mesa-vulkan-drivers` (Mesa 24 or newer renders on the CPU; Debian 12 "
            "has it in bookworm-backports), or the NVIDIA driver's Vulkan part"
        )


def _manifests() -> tuple[list[Path], str]:
    """Driver manifests that the Vulkan loader would read, and where they were looked for."""
    for variable in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        value = os.environ.get(variable, "")
        if value:
            return [Path(part) for part in value.split(os.pathsep)], f"{variable}={value}"
    folders = [Path(p) / "vulkan/icd.d" for p in ("/etc", "/usr/share", "/usr/local/share", "/usr/local/etc")]
    folders.append(Path.home() / ".local/share/vulkan/icd.d")
    found = [manifest for folder in folders if folder.is_dir() for manifest in folder.glob("*.json")]
    return found, "searched " + ", ".join(str(folder) for folder in folders)
