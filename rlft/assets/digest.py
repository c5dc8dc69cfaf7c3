"""Digests of files: git's name of a blob, and SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path

BLOCK = 1 << 20


def digest_of(path: Path, kind: str) -> str:
    """A file's digest.

    Args:
        path: the file.
        kind: ``git`` (SHA-1 of ``blob <size>`` NUL content, as git names it) or ``sha256``.

    Returns:
        ``<kind>:<hex>``.
    """
    if kind == "git":
        found = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    elif kind == "sha256":
        found = hashlib.sha256()
    else:
        raise ValueError(f"digest of kind {kind!r}; git and sha256 are known")
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return f"{kind}:{found.hexdigest()}"


def matches(path: Path, digest: str, size: int | None = None) -> bool:
    """Whether a file is there and has this digest; the size, where given, spares reading."""
    if not path.is_file() or (size is not None and path.stat().st_size != size):
        return False
    return digest_of(path, digest.partition(":")[0]) == digest
