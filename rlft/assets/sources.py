"""Where each asset comes from and what it must hold, read from the JSON manifests beside this file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from rlft.assets.errors import AssetError

MANIFESTS = Path(__file__).resolve().parent / "manifests"


@dataclass(frozen=True)
class Entry:
    """One file.

    Attributes:
        path: below the source's folder, with slashes.
        digest: ``git:<blob id>`` or ``sha256:<hex>``.
        size: bytes; None where it is not known.
        url: where it is alone; None where it comes in an archive.
    """

    path: str
    digest: str
    size: int | None
    url: str | None = None


@dataclass(frozen=True)
class Archive:
    """A zip that holds a whole source.

    Attributes:
        url: where it is.
        digest: of the zip; None where its bytes are not fixed (GitHub packs a tag anew).
        exact: whether the source's entries are its content; else they are another repository's and only tell files
            apart that came without this archive.
        sentinels: files without which it is the wrong archive.
    """

    url: str
    digest: str | None
    exact: bool
    sentinels: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """One asset.

    Attributes:
        name: the word of ``--only``.
        what: what it is.
        folder: where it lies below the root.
        origin: repository and commit that the entries' digests are from.
        licence: terms, for a person to read.
        entries: its files.
        archive: where it comes as one zip; None: file by file.
    """

    name: str
    what: str
    folder: str
    origin: str
    licence: str
    entries: tuple[Entry, ...]
    archive: Archive | None = None

    @property
    def known_bytes(self) -> int:
        """Bytes of the files whose size is known."""
        return sum(entry.size or 0 for entry in self.entries)


def all_sources() -> list[Source]:
    """Every source, in the order of their names."""
    return [read_source(path) for path in sorted(MANIFESTS.glob("*.json"))]


def read_source(path: Path) -> Source:
    """Read one manifest.

    Raises:
        AssetError: a file would lie outside of the source's folder.
    """
    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    base = tree.get("url")
    entries = tuple(
        Entry(safe_name(name), digest, size, f"{base}{quote(name)}" if base else None)
        for name, (digest, size) in tree["files"].items()
    )
    packed = tree.get("archive")
    return Source(
        name=tree["name"],
        what=tree["what"],
        folder=safe_name(tree["folder"]),
        origin=f"{tree['repository']}@{tree['commit']}",
        licence=tree["licence"],
        entries=entries,
        archive=Archive(packed["url"], packed["digest"], packed["exact"], tuple(packed["sentinels"]))
        if packed
        else None,
    )


def safe_name(name: str) -> str:
    """A relative path that stays where it is put.

    Raises:
        AssetError: it is absolute, leads upwards, or is not spelled plainly.
    """
    plain = PurePosixPath(name)
    strange = any(sign in name for sign in ("\\", "\0", ":"))
    if not name or strange or plain.is_absolute() or ".." in plain.parts:
        raise AssetError(f"{name!r}: not a plain relative path; nothing was written")
    return plain.as_posix()


def select(sources: list[Source], names: list[str] | None) -> list[Source]:
    """The sources of some names, or all.

    Raises:
        AssetError: there is none of a name.
    """
    known = {source.name: source for source in sources}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise AssetError(f"--only {' '.join(unknown)}: no such source; there are {', '.join(known)}", exit_code=2)
    return [known[name] for name in dict.fromkeys(names)] if names else sources
