"""Where assets lie, where each comes from and what it must hold, read from the JSON manifests beside this file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from rlft.errors import RlftError

MANIFESTS = Path(__file__).resolve().parent / "manifests"
VARIABLE = "RLFT_ASSETS"
DEFAULT = Path("~/.cache/rlft/assets")


class AssetError(RlftError):
    """An asset that could not be fetched or is not what it should be. Says what to do."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def assets_root(setting: str | None = None) -> Path | None:
    """The directory that ``assets.root`` names, else the variable RLFT_ASSETS: absolute, and it need not exist.

    Where nobody names one: ``~/.cache/rlft/assets`` if that is a directory, else None.
    """
    if named := setting or os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    return DEFAULT.expanduser() if DEFAULT.expanduser().is_dir() else None


@dataclass(frozen=True)
class Entry:
    """One file."""

    path: str  # below the source's folder, with slashes
    digest: str  # git:<blob id> or sha256:<hex>
    size: int | None  # bytes; None where it is not known
    url: str | None = None  # where it is alone; None where it comes in an archive


@dataclass(frozen=True)
class Archive:
    """A zip that holds a whole source."""

    url: str
    digest: str | None  # of the zip; None where its bytes are not fixed (GitHub packs a tag anew)
    exact: bool  # the entries are its content; else they are another repository's and only tell stand-ins apart
    sentinels: tuple[str, ...]  # files without which it is the wrong archive


@dataclass(frozen=True)
class Source:
    """One asset."""

    name: str  # the word of --only
    what: str
    folder: str  # where it lies below the root
    origin: str  # repository and commit that the entries' digests are from
    licence: str  # terms, for a person to read
    entries: tuple[Entry, ...]
    archive: Archive | None = None  # where it comes as one zip; None: file by file

    @property
    def place(self) -> str:
        """Where it is fetched from."""
        return self.origin if self.archive is None else self.archive.url


def all_sources() -> list[Source]:
    """Every source, in the order of their names."""
    return [read_source(path) for path in sorted(MANIFESTS.glob("*.json"))]


def read_source(path: Path) -> Source:
    """Read one manifest; one with files outside of the source's folder is refused."""
    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    base, archive = tree.get("url"), tree.get("archive")
    if archive is not None:
        archive = Archive(**{**archive, "sentinels": tuple(archive["sentinels"])})
    entries = tuple(
        Entry(safe_name(name), digest, size, f"{base}{quote(name)}" if base else None)
        for name, (digest, size) in tree["files"].items()
    )
    origin = f"{tree['repository']}@{tree['commit']}"
    return Source(tree["name"], tree["what"], safe_name(tree["folder"]), origin, tree["licence"], entries, archive)


def safe_name(name: str) -> str:
    """A relative path, refused where it is absolute, leads upwards, or is not spelled plainly."""
    plain = PurePosixPath(name)
    if not name or set(name) & set("\\\0:") or plain.is_absolute() or ".." in plain.parts:
        raise AssetError(f"{name!r}: not a plain relative path; nothing was written")
    return plain.as_posix()


def select(sources: list[Source], names: list[str] | None) -> list[Source]:
    """The sources of some names, or all; a name that there is not is refused."""
    known = {source.name: source for source in sources}
    if unknown := [name for name in names or [] if name not in known]:
        raise AssetError(f"--only {' '.join(unknown)}: no such source; there are {', '.join(known)}", exit_code=2)
    return [known[name] for name in dict.fromkeys(names)] if names else sources
