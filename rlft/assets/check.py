"""What of a source is there, byte by byte."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from rlft.assets.sources import Entry, Source, safe_name

RECEIPT = ".rlft-receipt.json"  # what a checked archive held


@dataclass(frozen=True)
class Status:
    """A source's files in a root."""

    source: Source
    whole: list[Entry]  # the original's
    missing: list[Entry]
    differ: list[Entry]  # with other content, stand-ins among them
    others: list[str]  # files there that the original has not
    against: str  # what they were compared with

    @property
    def complete(self) -> bool:
        """Whether every file is there and is the original's."""
        return not self.missing and not self.differ


def check(source: Source, root: Path) -> Status:
    """Compare a source's files below a root with what its checked archive held, else with the manifest."""
    directory = root / source.folder
    packed = _receipt(source, directory)
    entries = source.entries if packed is None else packed
    whole = {entry for entry in entries if matches(directory / entry.path, entry)}
    there = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    return Status(
        source,
        whole=[entry for entry in entries if entry in whole],
        missing=[entry for entry in entries if entry.path not in there],
        differ=[entry for entry in entries if entry not in whole and entry.path in there],
        others=sorted(there - {entry.path for entry in entries} - {RECEIPT}),
        against=source.origin if packed is None else f"what its archive held ({RECEIPT})",
    )


def digest_of(path: Path, kind: str) -> str:
    """``<kind>:<hex>`` of a file; the kind is ``sha256`` or ``git``, git's name of a blob."""
    start = b"" if kind == "sha256" else f"blob {path.stat().st_size}\0".encode()
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new("sha1" if start else "sha256", start))
    return f"{kind}:{found.hexdigest()}"


def matches(path: Path, entry: Entry) -> bool:
    """Whether a file is there and is the entry's; the size, where it is known, spares reading."""
    if not path.is_file() or (entry.size is not None and path.stat().st_size != entry.size):
        return False
    return digest_of(path, entry.digest.partition(":")[0]) == entry.digest


def write_receipt(digest: str | None, directory: Path, entries: list[Entry]) -> None:
    """Note what a checked archive of a digest held, for later checks."""
    files = {entry.path: [entry.digest, entry.size] for entry in entries}
    draft = directory / f"{RECEIPT}.partial"
    draft.write_text(json.dumps({"digest": digest, "files": files}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(directory / RECEIPT)


def _receipt(source: Source, directory: Path) -> tuple[Entry, ...] | None:
    """The entries of a receipt for the very archive that the manifest names; a damaged one counts as none."""
    path = directory / RECEIPT
    if source.archive is None or source.archive.exact or not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        entries = tuple(Entry(safe_name(name), digest, size) for name, (digest, size) in tree["files"].items())
        return entries if tree["digest"] == source.archive.digest else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
