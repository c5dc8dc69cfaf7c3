"""What of a source is there, byte by byte."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rlft.assets.digest import matches
from rlft.assets.sources import Entry, Source, safe_name

RECEIPT = ".rlft-receipt.json"  # what a checked archive held


@dataclass(frozen=True)
class Status:
    """A source's files in a root.

    Attributes:
        source: which.
        directory: where they should lie.
        whole: files that are the original's.
        missing: files that are not there.
        differ: files with other content, stand-ins among them.
        others: files there that the original has not.
        against: what they were compared with.
    """

    source: Source
    directory: Path
    whole: tuple[Entry, ...]
    missing: tuple[Entry, ...]
    differ: tuple[Entry, ...]
    others: tuple[str, ...]
    against: str

    @property
    def complete(self) -> bool:
        """Whether every file is there and is the original's."""
        return not self.missing and not self.differ


def check(source: Source, root: Path) -> Status:
    """Compare a source's files with their digests.

    A source that was unpacked from its checked archive is compared with what that archive held; any other with the
    manifest.

    Args:
        source: which.
        root: of all assets.
    """
    directory = root / source.folder
    packed = _receipt(source, directory)
    entries = source.entries if packed is None else packed
    whole: list[Entry] = []
    missing: list[Entry] = []
    differ: list[Entry] = []
    for entry in entries:
        path = directory / entry.path
        if matches(path, entry.digest, entry.size):
            whole.append(entry)
        else:
            (differ if path.exists() else missing).append(entry)
    expected = {entry.path for entry in entries} | {RECEIPT}
    there = (path.relative_to(directory).as_posix() for path in sorted(directory.rglob("*")) if path.is_file())
    others = tuple(name for name in there if name not in expected and not name.endswith(".partial"))
    against = source.origin if packed is None else f"what its archive held ({RECEIPT})"
    return Status(source, directory, tuple(whole), tuple(missing), tuple(differ), others, against)


def write_receipt(source: Source, directory: Path, entries: list[Entry]) -> None:
    """Note what a checked archive held, for later checks."""
    assert source.archive is not None
    tree = {
        "url": source.archive.url,
        "digest": source.archive.digest,
        "files": {entry.path: [entry.digest, entry.size] for entry in entries},
    }
    path = directory / RECEIPT
    draft = path.with_name(f"{path.name}.partial")
    draft.write_text(json.dumps(tree, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(path)


def _receipt(source: Source, directory: Path) -> tuple[Entry, ...] | None:
    """The entries of a receipt for the very archive that the manifest names."""
    path = directory / RECEIPT
    if source.archive is None or source.archive.exact or not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["digest"] != source.archive.digest:
            return None
        return tuple(Entry(safe_name(name), digest, size) for name, (digest, size) in tree["files"].items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # damaged: then the manifest is what is left to compare with
