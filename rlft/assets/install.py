"""Filling a directory of assets: fetched by pooch, checked beside it, and put in place whole or not at all."""

import logging
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pooch
import requests
from filelock import FileLock, Timeout

from rlft.assets.sources import Archive, AssetError, Entry, Source, check, digest_of, matches, safe_name, write_receipt

log = logging.getLogger(__name__)

WORK = ".downloads"  # what is on its way, below the root
ATTEMPTS = 5
SPARE = 64 << 20  # bytes that a download leaves free on the disk
MAX_BYTES, MAX_RATIO = 4 << 30, 200  # of an archive unpacked; unpacked over packed, where meshes as text reach 10
NOISE = ("__MACOSX", ".DS_Store")
WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that a later attempt may not meet


def install(sources: list[Source], root: Path, timeout_s: float = 30.0) -> None:
    """Fetch what is missing or differs; what is whole stays untouched, and so do files of one's own.

    The root is made where it is missing; the timeout is that of silence.

    Raises:
        AssetError: something cannot be had, or nothing can be written there.
    """
    wanted = {s: [*state.missing, *state.differ] for s in sources if not (state := check(s, root)).complete}
    if not wanted:
        return
    _require_room(root, sum((e.size or 0) * (2 if s.archive else 1) for s, entries in wanted.items() for e in entries))
    try:
        with _alone(root) as place:
            for source, entries in wanted.items():
                work = place / source.name
                log.info("%s: fetching it from %s", source.name, source.place)
                if source.archive is not None:
                    _from_archive(source, source.archive, work, root / source.folder, timeout_s)
                    continue
                for entry in entries:
                    _fetch(str(entry.url), work / entry.path, entry.digest, timeout_s)
                    _put(entry, work, root / source.folder)
    except OSError as error:
        raise AssetError(f"{root}: {error}; give a directory that can be written: --root DIR") from error


def _fetch(url: str, target: Path, digest: str | None, timeout_s: float) -> None:
    pooch.get_logger().setLevel("WARNING")
    download = partial(_download, digest=digest, timeout_s=timeout_s)
    one = {target.name: url}
    keeper = pooch.create(target.parent, "", registry=dict.fromkeys(one), urls=one, retry_if_failed=ATTEMPTS - 1)
    try:
        keeper.fetch(target.name, downloader=download)
    except requests.RequestException as error:
        raise AssetError(
            f"{url}: {error}; given up after {ATTEMPTS} attempts; the same command goes on from here. Without "
            "a direct connection set https_proxy, or fetch on another machine, copy the directory here and name it by "
            "assets.root or RLFT_ASSETS"
        ) from error
    target.chmod(0o644)  # pooch's temporary file is its owner's alone


def _download(url: str, output_file: str, _keeper: object, *, digest: str | None, timeout_s: float) -> None:
    """Raise at once what another attempt cannot mend. pooch knows no git blob ids, so the digest is compared here."""
    try:
        pooch.HTTPDownloader(timeout=timeout_s, chunk_size=1 << 18)(url, output_file, None)
    except requests.HTTPError as error:
        if error.response is not None and error.response.status_code in PASSING:
            raise
        raise AssetError(f"{url}: HTTP {error}") from error
    with open(output_file, "rb") as file:
        if file.read(256).lstrip().lower().startswith((b"<!doctype html", b"<html")):
            raise AssetError(f"{url}: a web page, not the file; is there a proxy or a login in between?")
    if digest and (found := digest_of(Path(output_file), digest.partition(":")[0])) != digest:
        remedy = "Try again; if it stays so, the file was changed where it comes from"
        raise AssetError(f"{url}: its digest is {found}, not {digest}; it was deleted. {remedy}")


def _from_archive(source: Source, archive: Archive, work: Path, directory: Path, timeout_s: float) -> None:
    _fetch(archive.url, work / "archive.zip", archive.digest, timeout_s)
    fresh = _unpack(work / "archive.zip", work / "unpacked", Path(source.folder).name, archive.url)
    names = sorted(path.relative_to(fresh).as_posix() for path in fresh.rglob("*") if path.is_file())
    if absent := [name for name in archive.sentinels if name not in names]:
        raise AssetError(f"{archive.url}: holds no {absent[0]}; it is another archive; nothing was changed")
    entries = list(source.entries)
    if not archive.exact:
        entries = [Entry(name, digest_of(fresh / name, "git"), (fresh / name).stat().st_size) for name in names]
    elif wrong := [entry.path for entry in entries if not matches(fresh / entry.path, entry)]:
        what = f"{len(wrong)} files are not those of {source.origin}, among them {wrong[0]}"
        raise AssetError(f"{archive.url}: {what}; nothing was changed")
    for entry in entries:
        _put(entry, fresh, directory)
    write_receipt(archive.digest, directory, entries)


def _unpack(packed: Path, target: Path, root: str, url: str) -> Path:
    """Unpack a zip that nobody has to trust; returns the folder at its top, or that one of several called root."""
    try:
        with zipfile.ZipFile(packed) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in members:
                safe_name(member.filename)  # extractall would put it elsewhere instead of refusing it
                if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                    raise AssetError(f"{url}: {member.filename!r} is a link or a device; nothing was unpacked")
            total, size = sum(member.file_size for member in members), packed.stat().st_size
            if total > min(MAX_BYTES, MAX_RATIO * size):
                allowed = f"allowed are {MAX_BYTES} bytes and {MAX_RATIO} times its size"
                raise AssetError(f"{url}: {total} bytes in a zip of {size}; {allowed}; nothing was unpacked")
            archive.extractall(target, [m for m in members if not any(noise in m.filename for noise in NOISE)])
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise AssetError(f"{url}: not a whole zip: {error}; it was deleted; try again") from error
    tops = list(target.iterdir())
    if len(tops) == 1 and tops[0].is_dir():
        return tops[0]
    return target / root if (target / root).is_dir() else target


def _put(entry: Entry, source: Path, directory: Path) -> None:
    (directory / entry.path).parent.mkdir(parents=True, exist_ok=True)
    os.replace(source / entry.path, directory / entry.path)


def _require_room(root: Path, need: int) -> None:
    """Refuse a place that is full, or marked read-only: also for root, whom the system would let write there."""
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    if not there.is_dir():
        raise AssetError(f"{root}: {there} is a file; give a directory that can be written: --root DIR", exit_code=2)
    if not there.stat().st_mode & WRITABLE or not os.access(there, os.W_OK):
        raise AssetError(f"{there} is read-only; make it writable, or give another directory: --root DIR")
    if (free := shutil.disk_usage(there).free) < need + SPARE:
        sizes = f"needs {(need + SPARE) / 1e6:.0f} MB, {free / 1e6:.0f} MB are free"
        raise AssetError(f"{root}: {sizes}; make room or give another directory: --root DIR")


@contextmanager
def _alone(root: Path) -> Iterator[Path]:
    """An empty work directory for this process alone, which is removed whatever happens."""
    work = root / WORK
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / ".lock", timeout=0):
            try:
                with tempfile.TemporaryDirectory(dir=work) as fresh:
                    yield Path(fresh)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except Timeout:
        raise AssetError(f"{root}: another process is downloading into it; wait for that one") from None
