"""Writes the file lists of the manifests from git trees: ``python -m tools.pin_assets NAME GIT_DIR``.

GIT_DIR is a clone, bare or not, of the repository that the manifest names. Its newest commit is taken. A blob that the
clone lacks keeps its id; its size is then not known.
"""

import json
import subprocess
import sys
from pathlib import Path

from rlft.assets.sources import MANIFESTS


def pinned(folders: dict[str, str], git_dir: str) -> tuple[str, dict[str, list[str | int | None]]]:
    """The newest commit and the files below some folders.

    Args:
        folders: folder or file of the repository -> where it lies in the assets; "" is the top of either.
        git_dir: of the clone.

    Returns:
        the commit; path -> digest and size.
    """
    git = ["git", f"--git-dir={git_dir}"]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    listed = subprocess.run([*git, "ls-tree", "-r", "-l", "-z", commit], check=True, capture_output=True).stdout
    files: dict[str, list[str | int | None]] = {}
    for line in listed.decode().split("\0")[:-1]:
        facts, name = line.split("\t", 1)
        _, _, blob, size = facts.split()
        for folder, place in folders.items():
            below = name == folder or not folder or name.startswith(f"{folder}/")
            if below:
                rest = name.removeprefix(folder).lstrip("/")
                path = "/".join(part for part in (place, rest) if part)
                files[path] = [f"git:{blob}", int(size) if size.isdigit() else None]
    return commit, dict(sorted(files.items()))


def main(argv: list[str]) -> int:
    """Renew one manifest."""
    name, git_dir = argv
    path: Path = MANIFESTS / f"{name}.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    old = tree["commit"]
    tree["commit"], tree["files"] = pinned(tree["folders"], git_dir)
    if "url" in tree:
        tree["url"] = tree["url"].replace(old, tree["commit"])
    head = json.dumps({k: v for k, v in tree.items() if k != "files"}, indent=1, ensure_ascii=False)
    rows = ",\n".join(f"  {json.dumps(k, ensure_ascii=False)}: {json.dumps(v)}" for k, v in tree["files"].items())
    path.write_text(f'{head[:-2]},\n "files": {{\n{rows}\n }}\n}}\n', encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
