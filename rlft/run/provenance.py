"""What made a run: command, versions, machine and commit, one line per command in ``provenance.jsonl``."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

DISTRIBUTION = "rlft-flow"


def record_command(run_dir: Path, stage: str) -> None:
    """Append one line that says how this stage was started, as a user would type it, and where."""
    script, torch = Path(sys.argv[0]), sys.modules.get("torch")
    started = ["-m", script.parent.name] if script.name == "__main__.py" else sys.argv[:1]
    line = {
        "time": time.time(),
        "stage": stage,
        "command": ["python", *started, *sys.argv[1:]],
        "git_commit": git_commit(Path(__file__)),
        "torch_threads": torch and torch.get_num_threads(),  # a stage without torch must not load it for the record
        **machine_facts(),
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "provenance.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def machine_facts() -> dict[str, Any]:
    """Versions and hardware, for the record; reads package metadata and imports nothing heavy."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu_cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    """Of this package and of everything that it asks for, as far as it is installed."""
    names, found = [DISTRIBUTION, "torch", "numpy"], {}
    with suppress(metadata.PackageNotFoundError):
        names += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in metadata.requires(DISTRIBUTION) or ()]
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def git_commit(source: Path) -> str | None:
    """The commit that a source file stands at, with ``-dirty`` where tracked files differ.

    None where git is missing, or does not track the file (an installed package inside someone's checkout).
    """
    git = shutil.which("git")
    if git is None or not _git(git, source, "ls-files", "--error-unmatch", source.name):
        return None
    return _git(git, source, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(git: str, source: Path, *words: str) -> str | None:
    command = [git, "-C", str(source.parent), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
