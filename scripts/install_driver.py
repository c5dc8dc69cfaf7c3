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
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("libvulkan1", "mesa-vulkan-drivers", "libx11-6", "libegl1", "libgl1")
OLDEST_MESA = 24
SOURCES = Path("/etc/apt/sources.list.d/rlft-backports.sources")


@dataclass(frozen=True)
class Source:
    """One archive that apt reads."""

    uri: str
    suites: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()

    def suite_stanza(self, suite: str) -> str:
        """The deb822 text that adds another suite of the same archive, trusted by the same key."""
        keys = "".join(f"{name}: {value}\n" for name, value in self.options)
        return f"Types: deb\nURIs: {self.uri}\nSuites: {suite}\nComponents: main\n{keys}"


def parse_one_line(text: str) -> list[Source]:
    """Read the older format: ``deb [signed-by=...] uri suite components``."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)", line)
        if match:
            options = dict(pair.split("=", 1) for pair in (match[1] or "").split() if "=" in pair)
            signed = (("Signed-By", options["signed-by"]),) if "signed-by" in options else ()
            found.append(Source(match[2], (match[3],), signed))
    return found


def parse_deb822(text: str) -> list[Source]:
    """Read the newer format: stanzas of ``Name: value`` lines; continuation lines begin with a space."""
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and name:
                fields[name] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0")
        if enabled and "deb" in fields.get("types", "").split():
            signed = (("Signed-By", fields["signed-by"]),) if "signed-by" in fields else ()
            found += [Source(uri, tuple(fields.get("suites", "").split()), signed) for uri in fields["uris"].split()]
    return found


def apt_sources(root: Path = Path("/etc/apt")) -> list[Source]:
    """Every enabled archive of this machine's apt."""
    found = []
    for path in [root / "sources.list", *sorted((root / "sources.list.d").glob("*"))]:
        if path.is_file() and path.suffix in (".list", ".sources"):
            parse = parse_deb822 if path.suffix == ".sources" else parse_one_line
            found += parse(path.read_text(encoding="utf-8", errors="replace"))
    return found


def release() -> dict[str, str]:
    """The fields of /etc/os-release."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


def mesa_major(policy: str) -> int | None:
    """The major version of the candidate in the output of ``apt-cache policy mesa-vulkan-drivers``."""
    match = re.search(r"Candidate:\s*(?:\d+:)?(\d+)\.", policy)
    return int(match[1]) if match else None


def backports_source(sources: list[Source], codename: str) -> Source | None:
    """The archive of the release itself; it has the backports suite too."""
    return next((source for source in sources if codename in source.suites), None)


def apt(*arguments: str) -> None:
    """Run apt-get without questions; what it says is shown only where it fails.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        ["apt-get", "-q", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode != 0:
        raise RuntimeError(f"apt-get {' '.join(arguments)} ended with {done.returncode}\n{done.stdout[-2000:]}")


def install() -> None:
    """Install the packages, from backports where the release's Mesa is too old.

    Raises:
        RuntimeError: apt failed, or no Mesa that is new enough can be had.
    """
    apt("update")
    policy = subprocess.run(
        ["apt-cache", "policy", "mesa-vulkan-drivers"], check=True, capture_output=True, text=True
    ).stdout
    major = mesa_major(policy)
    if major is not None and major >= OLDEST_MESA:
        apt("install", "-y", "--no-install-recommends", *PACKAGES)
        return
    facts = release()
    codename = facts.get("VERSION_CODENAME", "")
    source = backports_source(apt_sources(), codename) if facts.get("ID") == "debian" else None
    if source is None:
        raise RuntimeError(f"this release has Mesa {major}, SAPIEN needs {OLDEST_MESA}, and there is no backport")
    suite = f"{codename}-backports"
    print(f"setup: this release has Mesa {major}; taking a newer one from {suite}", file=sys.stderr)
    try:
        SOURCES.write_text(source.suite_stanza(suite), encoding="utf-8")
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
