"""Install what SAPIEN and MuJoCo need to render without a GPU: Mesa's software Vulkan driver, libX11, and EGL.

Does so on Debian and Ubuntu as root, and elsewhere says what to install. SAPIEN needs Mesa 24 or later; where the
release has an older one, Debian's backports suite is read from the mirror that apt uses already, for this one
installation. Standard library only.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("libvulkan1", "mesa-vulkan-drivers", "libx11-6", "libegl1", "libgl1")
OLDEST_MESA = 24
SOURCES = Path("/etc/apt/sources.list.d/rlft-backports.list")
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def release() -> dict[str, str]:
    """The fields of /etc/os-release."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


def mesa_major(policy: str) -> int | None:
    """The major version of the candidate in the output of ``apt-cache policy mesa-vulkan-drivers``."""
    match = re.search(r"Candidate:\s*(?:\d+:)?(\d+)\.", policy)
    return int(match[1]) if match else None


def archive(listed: str, codename: str) -> str | None:
    """Where apt has a release from, of lines ``release URI``; the backports suite is there too."""
    return next(
        (uri for name, _, uri in (line.partition(" ") for line in listed.splitlines()) if name == codename), None
    )


def asked(*command: str) -> str:
    """What one of apt's commands answers."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def apt(*arguments: str) -> None:
    """Run apt-get without questions; what it says is shown only where it fails.

    Raises:
        RuntimeError: it failed.
    """
    command, env = ["apt-get", "-q", *arguments], {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    if done.returncode != 0:
        raise RuntimeError(f"apt-get {' '.join(arguments)} ended with {done.returncode}\n{done.stdout[-2000:]}")


def install() -> None:
    """Install the packages, from backports where the release's Mesa is too old.

    Raises:
        RuntimeError: apt failed, or no Mesa that is new enough can be had.
    """
    apt("update")
    major = mesa_major(asked("apt-cache", "policy", "mesa-vulkan-drivers"))
    if major is not None and major >= OLDEST_MESA:
        apt("install", "-y", "--no-install-recommends", *PACKAGES)
        return
    codename = release().get("VERSION_CODENAME", "")
    uri = archive(asked("apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Origin: Debian"), codename)
    if uri is None:
        raise RuntimeError(f"this release has Mesa {major}, SAPIEN needs {OLDEST_MESA}, and there is no backport")
    suite = f"{codename}-backports"
    print(f"setup: this release has Mesa {major}; taking a newer one from {suite}", file=sys.stderr)
    try:
        SOURCES.write_text(f"deb [signed-by={KEYS}] {uri} {suite} main\n", encoding="utf-8")
        apt("update")
        apt("install", "-y", "--no-install-recommends", "-t", suite, *PACKAGES)
    finally:
        SOURCES.unlink(missing_ok=True)
        subprocess.run(["apt-get", "-qq", "update"], check=False, capture_output=True)


def advice(reason: str) -> str:
    """What a person has to do where this script may not or cannot."""
    return f"""\
setup: {reason}. Rendering needs
  - a Vulkan driver: that of the GPU, or Mesa's software driver (lavapipe) of Mesa {OLDEST_MESA} or later; its loader.
      Debian, Ubuntu:  apt-get install {" ".join(PACKAGES)}
                       (Debian 12: add its backports suite and install with -t bookworm-backports)
      Fedora:          dnf install vulkan-loader mesa-vulkan-drivers libX11 mesa-libEGL mesa-libGL
      Arch:            pacman -S vulkan-icd-loader vulkan-swrast libx11 libglvnd mesa
  - in a container with an NVIDIA GPU: NVIDIA_DRIVER_CAPABILITIES with graphics in it.
Then run scripts/setup.sh again; VK_ICD_FILENAMES chooses among several drivers."""


def main() -> int:
    """Install, or say what to install; 0 where something was installed."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        print(advice("no driver can be installed from here (it takes root and apt)"), file=sys.stderr)
        return 1
    print("setup: installing Mesa's software Vulkan driver", file=sys.stderr)
    try:
        install()
    except (OSError, subprocess.CalledProcessError, RuntimeError) as error:
        print(advice(f"installing a driver failed: {error}"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
