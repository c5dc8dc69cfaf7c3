"""Whether a renderer can be there at all, found out in a millisecond and without importing anything heavy."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rlft_envs.errors import EnvSetupError


def check_vulkan() -> None:
    """Refuse where no Vulkan driver is registered: SAPIEN's own failure comes late and is unclear.

    ManiSkill's tasks paint their objects through the renderer, so they need a driver even where no camera is rendered.

    Raises:
        EnvSetupError: no driver manifest exists.
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
