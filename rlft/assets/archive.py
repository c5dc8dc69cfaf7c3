"""Unpacking a zip that nobody has to trust."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path

from rlft.assets.errors import AssetError
from rlft.assets.sources import safe_name

MAX_FILES = 20_000
MAX_BYTES = 4 << 30
MAX_RATIO = 200  # unpacked over packed, of the whole archive; meshes as text reach 10
BLOCK = 1 << 20
NOISE = ("__MACOSX", ".DS_Store")


def unpack(archive: Path, target: Path, root: str) -> list[str]:
    """Unpack the files of a zip that holds one folder, without that folder.

    Args:
        archive: the zip.
        target: an empty directory.
        root: the folder to take where the zip has several at its top.

    Returns:
        the files' paths below ``target``.

    Raises:
        AssetError: it is no zip, is damaged, holds anything but plain files below itself, or unpacks to more than it
            may.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            members = _members(packed, archive)
            prefix = _prefix([name for name, _ in members], root)
            names = []
            for name, member in members:
                if name.startswith(prefix):
                    names.append(name.removeprefix(prefix))
                    _write(packed, member, target / names[-1])
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise AssetError(f"{archive}: not a whole zip: {error}; it was deleted; try again") from error
    return names


def _members(packed: zipfile.ZipFile, archive: Path) -> list[tuple[str, zipfile.ZipInfo]]:
    found: dict[str, zipfile.ZipInfo] = {}
    for member in packed.infolist():
        name = safe_name(member.filename)
        if set(NOISE) & set(name.split("/")) or member.is_dir():
            continue
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise AssetError(f"{archive}: {name!r} is a link or a device; nothing was unpacked")
        if member.flag_bits & 1:
            raise AssetError(f"{archive}: {name!r} is encrypted; nothing was unpacked")
        if name in found:
            raise AssetError(f"{archive}: {name!r} is in it twice; nothing was unpacked")
        found[name] = member
    total = sum(member.file_size for member in found.values())
    if len(found) > MAX_FILES or total > MAX_BYTES or total > MAX_RATIO * archive.stat().st_size:
        raise AssetError(
            f"{archive}: {len(found)} files of {total} bytes in a zip of {archive.stat().st_size}; allowed are "
            f"{MAX_FILES} files, {MAX_BYTES} bytes and {MAX_RATIO} times its size; nothing was unpacked"
        )
    return list(found.items())


def _prefix(names: list[str], root: str) -> str:
    tops = {name.partition("/")[0] if "/" in name else "" for name in names}
    if len(tops) == 1 and "" not in tops:
        return f"{tops.pop()}/"
    return f"{root}/" if root in tops else ""


def _write(packed: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        packed.open(member) as source,
        path.open("xb") as file,
    ):  # zipfile reads no more than file_size, and checks its CRC
        while block := source.read(BLOCK):
            file.write(block)
