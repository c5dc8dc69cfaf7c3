"""Where assets lie, where each comes from, what it must hold (the manifests beside this file), and what is there."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from rlft.errors import RlftError

MANIFESTS = Path(__file__).resolve().parent / "manifests"
RECEIPT = ".rlft-receipt.json"  # what a checked archive held
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
