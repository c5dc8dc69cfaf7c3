"""The size and SHA-256 of every file of a directory, kept beside them: safetensors does not notice a flipped bit.

A directory below that has a manifest of its own is listed by that manifest alone, so each byte is hashed once.
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

MANIFEST = "manifest.json"


def write_manifest(directory: Path) -> None:
    """List every file below a directory, but for those that the manifest of a subdirectory lists."""
    listed = {path.parent for path in directory.glob(f"*/**/{MANIFEST}")}
    files = {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(p for p in directory.rglob("*") if p.is_file() and p != directory / MANIFEST)
        if path.name == MANIFEST or listed.isdisjoint(path.parents)
    }
    (directory / MANIFEST).write_text(json.dumps({"files": files}, indent=1) + "\n", encoding="utf-8")


def find_damage(directory: Path, *, unread: Collection[str] = ()) -> str | None:
    """The first file that is not as the manifest, or one that it lists, says, and how; None where all are.

    Of the files ``unread`` only the size is compared: hashing gigabytes takes minutes.
    """
    try:
        listed = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["files"]
        entries = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in listed.items()}
    except FileNotFoundError:
        return f"no {MANIFEST}; not a checkpoint, or not a whole one"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} is damaged ({type(error).__name__}: {error})"
    for name, (size, digest) in entries.items():
        path = Path(name)
        if ".." in path.parts or path.is_absolute():
            return f"{MANIFEST} lists {name!r}, which is outside of the checkpoint"
        if (reason := _damage(directory / path, size, None if name in unread else digest)) is not None:
            return f"{name} {reason}"
        if path.name == MANIFEST and (reason := find_damage(directory / path.parent)) is not None:
            return f"{path.parent}/{reason}"
    return None


def sha256_of(path: Path) -> str:
    """A file's SHA-256, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damage(path: Path, size: int, digest: str | None) -> str | None:
    try:
        if (found := path.stat().st_size) != size:
            what = what_instead(path)
            return f"has {found} bytes, {size} were written{f'; it is {what}' if what else ''}"
        return "is not what was written (SHA-256 differs)" if digest and sha256_of(path) != digest else None
    except FileNotFoundError:
        return f"is listed in {MANIFEST}, but is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def what_instead(path: Path) -> str:
    """What stands in a file's place where a copy went wrong, and the remedy; empty where nothing is known."""
    with path.open("rb") as file:
        head = file.read(256).lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; run `git lfs pull` where it came from"
    page = head.startswith((b"<!doctype", b"<html", b"<?xml"))
    return "a web page, not the file itself; the download met a login or an error page" if page else ""
