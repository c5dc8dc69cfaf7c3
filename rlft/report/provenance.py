"""What made a run: command, versions, machine and commit, one line per command in ``provenance.jsonl``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rlft.files import machine_facts


def record_command(run_dir: Path, stage: str, command: Sequence[str] | None = None) -> None:
    """Append one line that says how this stage was started, and where; ``command`` None takes this process's own."""
    torch = sys.modules.get("torch")  # a stage that does not need it must not load it for the record
    line = {
        "time": time.time(),
        "stage": stage,
        "command": list(command) if command is not None else own_command(),
        "git_commit": git_commit(Path(__file__)),
        "torch_threads": torch.get_num_threads() if torch is not None else None,
        **machine_facts(),
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "provenance.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def own_command() -> list[str]:
    """The command of this process as a user would type it: ``python script arguments``."""
    script = Path(sys.argv[0])
    return ["python", *(["-m", script.parent.name] if script.name == "__main__.py" else [sys.argv[0]]), *sys.argv[1:]]


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
