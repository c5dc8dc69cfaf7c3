"""Filling a directory of assets."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlft.assets.archive import unpack
from rlft.assets.check import check, write_receipt
from rlft.assets.digest import digest_of, matches
from rlft.assets.errors import AssetError
from rlft.assets.fetch import Patience, fetch, require_room
from rlft.assets.sources import Archive, Entry, Source

log = logging.getLogger(__name__)

WORK = ".downloads"  # archives on their way, below the root
SAY_EVERY_S = 5.0
WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def install(sources: list[Source], root: Path, patience: Patience) -> None:
    """Fetch what is missing or differs; what is whole stays untouched, and so do files of one's own.

    Args:
        sources: what to fetch.
        root: of all assets; made where it is missing.
        patience: timeouts and retries.

    Raises:
        AssetError: something cannot be had, or nothing can be written there.
    """
    states = [state for source in sources if not (state := check(source, root)).complete]
    if not states:
        return
    _require_writable(root)
    require_room(root, sum(_need(state.source, [*state.missing, *state.differ]) for state in states))
    try:
        with _alone(root):
            for state in states:
                if state.source.archive is None:
                    _file_by_file(state.source, [*state.missing, *state.differ], state.directory, patience)
                else:
                    _from_archive(state.source, state.source.archive, root, patience)
    except OSError as error:
        raise AssetError(f"{root}: {error}; give a directory that can be written: --root DIR") from error


def _require_writable(root: Path) -> None:
    """Refuse a directory that is marked read-only, also for root, whom the system would let write there."""
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    if not there.is_dir():
        raise AssetError(f"{root}: {there} is a file; give a directory that can be written: --root DIR", exit_code=2)
    if not there.stat().st_mode & WRITABLE or not os.access(there, os.W_OK):
        raise AssetError(f"{there} is read-only; make it writable, or give another directory: --root DIR")


def _need(source: Source, entries: list[Entry]) -> int:
    """Bytes on the disk while it is fetched; an archive lies there packed and unpacked."""
    return sum(entry.size or 0 for entry in entries) * (1 if source.archive is None else 2)


def _file_by_file(source: Source, wanted: list[Entry], directory: Path, patience: Patience) -> None:
    log.info("%s: %d files, at least %.1f MB", source.name, len(wanted), _need(source, wanted) / 1e6)
    done, said = 0, time.monotonic()
    for number, entry in enumerate(wanted, 1):
        if entry.url is None:
            raise AssetError(f"{source.name}: {entry.path} has no address in the manifest")
        fetch(entry.url, directory / entry.path, entry.digest, entry.size, patience)
        done += (directory / entry.path).stat().st_size
        if number == len(wanted) or time.monotonic() - said > SAY_EVERY_S:
            log.info("%s: %d of %d files, %.1f MB", source.name, number, len(wanted), done / 1e6)
            said = time.monotonic()


def _from_archive(source: Source, archive: Archive, root: Path, patience: Patience) -> None:
    directory, work = root / source.folder, root / WORK
    packed, fresh = work / f"{source.name}.zip", work / source.name
    shutil.rmtree(fresh, ignore_errors=True)
    if archive.digest is None or not matches(packed, archive.digest):
        log.info("%s: fetching %s", source.name, archive.url)
        fetch(archive.url, packed, archive.digest, None, patience)
    fresh.mkdir(parents=True)
    try:
        names = unpack(packed, fresh, Path(source.folder).name)
        entries = _checked(source, archive, fresh, names)
    except AssetError:
        packed.unlink()  # else the next attempt would meet it again
        raise
    for entry in entries:
        (directory / entry.path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(fresh / entry.path, directory / entry.path)
    write_receipt(source, directory, entries)
    shutil.rmtree(fresh)
    packed.unlink()
    log.info("%s: %d files", source.name, len(entries))


def _checked(source: Source, archive: Archive, fresh: Path, names: list[str]) -> list[Entry]:
    """The files to keep, with their digests."""
    absent = [name for name in archive.sentinels if name not in names]
    if absent:
        raise AssetError(f"{archive.url}: holds no {absent[0]}; it is another archive; nothing was changed")
    if not archive.exact:
        return [Entry(name, digest_of(fresh / name, "git"), (fresh / name).stat().st_size) for name in sorted(names)]
    wrong = [entry.path for entry in source.entries if not matches(fresh / entry.path, entry.digest, entry.size)]
    if wrong:
        raise AssetError(
            f"{archive.url}: {len(wrong)} files are not those of {source.origin}, among them {wrong[0]}; nothing was "
            "changed"
        )
    return list(source.entries)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the work directory for this process, and remove it where nothing is left in it."""
    work = root / WORK
    work.mkdir(parents=True, exist_ok=True)
    handle = os.open(work, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AssetError(f"{root}: another process is downloading into it; wait for that one") from None
        try:
            yield
        finally:
            if not any(work.iterdir()):
                work.rmdir()
    finally:
        os.close(handle)
