"""Checkpoints on disk: whole or absent, proved by a manifest, newest first.

Layout of a checkpoint directory::

    000010/pretrained_model/   the policy, in lerobot's layout
    000010/training_state/     everything else that resuming needs (rlft.run.statefile)
    000010/manifest.json       size and SHA-256 of every file
    last -> 000010             the newest one
    best -> 000005             the one of the best evaluation, which stays when it is old

A checkpoint is written under a hidden temporary name, synced, and renamed: a kill at any moment leaves the
earlier ones as they were. safetensors does not notice a flipped bit; the manifest does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from rlft.errors import DivergedError, RlftError
from rlft.run.statefile import read_state, write_state

log = logging.getLogger(__name__)

MANIFEST, MODEL, STATE, LAST, BEST = "manifest.json", "pretrained_model", "training_state", "last", "best"
TMP, REPLACED = ".tmp-", ".replaced-"  # prefixes of what a kill may leave behind
SUPERSEDED = ".superseded"


class CheckpointError(RlftError):
    """A checkpoint that cannot be written, or that is not what was written."""


def save(
    directory: Path,
    step: int,
    write_pretrained: Callable[[Path], None],
    state: Mapping[str, Any],
    keep: int,
    *,
    best: bool = False,
) -> Path:
    """Write one checkpoint and remove the oldest ones.

    Args:
        directory: the directory of all checkpoints of a stage; made where it is missing.
        step: its number; an existing checkpoint of that step is replaced.
        write_pretrained: writes the policy into the (existing, empty) directory that it is given.
        state: nested dicts, lists and tuples of tensors and plain values.
        keep: how many of the newest stay, at least 1; the best one stays as well.
        best: this one is the best so far.

    Returns:
        the checkpoint's directory.

    Raises:
        CheckpointError: it cannot be written (disk full, read-only); earlier checkpoints are untouched.
        DivergedError: a tensor of it holds NaN or infinity; as above.
    """
    directory, target = Path(directory), Path(directory) / f"{step:06d}"
    _refuse_non_finite(target, state)
    temporary = directory / f"{TMP}{target.name}-{os.getpid()}"
    try:
        (temporary / MODEL).mkdir(parents=True)
        write_pretrained(temporary / MODEL)
        write_state(temporary / STATE, state)
        _write_manifest(temporary)
        _swap_in(temporary, target)
        _point(LAST, target)
        if best:
            _point(BEST, target)
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise CheckpointError(
            f"{target}: cannot be written ({reason}); earlier checkpoints are untouched; "
            "make room or choose another output.dir, then continue with resume=auto"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _set_aside_later(directory, step)
    best_one = (directory / BEST).resolve()
    for old in _steps(directory)[max(keep, 1) :]:
        if old.resolve() != best_one:
            shutil.rmtree(old)
    return target


def _refuse_non_finite(target: Path, state: Any, name: str = "training_state") -> None:
    """A weight or a moment that is not finite poisons every step after it: the newest checkpoint stays the newest."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            _refuse_non_finite(target, value, f"{name}.{key}")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            _refuse_non_finite(target, value, f"{name}[{index}]")
    elif isinstance(state, torch.Tensor) and state.is_floating_point() and not bool(torch.isfinite(state).all()):
        raise DivergedError(f"{target}: not written, because {name} holds NaN or infinity; the last whole one stands")


def newest_valid(directory: Path) -> Path | None:
    """The newest checkpoint that is what was written, or None; each broken one is named with its reason in the log."""
    directory = Path(directory)
    clean(directory)
    for path in _steps(directory):
        try:
            verify(path)
        except CheckpointError as error:
            log.warning("skipping a broken checkpoint: %s", error)
        else:
            return path
    return None


def find_resume(resume: str | None, directory: Path) -> Path | None:
    """The checkpoint that the setting ``resume`` means.

    Args:
        resume: None, ``auto``, or a checkpoint's directory.
        directory: the run's checkpoints.

    Returns:
        its directory; None to start anew (always for None, and for ``auto`` where there is no whole one).

    Raises:
        CheckpointError: the named directory is no whole checkpoint.
    """
    if resume is None:
        return None
    if resume == "auto":
        return newest_valid(directory)
    verify(Path(resume))
    return Path(resume)


def load_state(path: Path) -> dict[str, Any]:
    """Read the training state of a checkpoint; tensors on the CPU.

    Raises:
        CheckpointError: a file of it is missing or not what was written.
    """
    verify(path, below=STATE)
    return read_state(Path(path) / STATE)


def verify(path: Path, below: str = "") -> None:
    """Check every file of a checkpoint against the manifest.

    Args:
        path: the checkpoint's directory.
        below: only files under this name.

    Raises:
        CheckpointError: with the first file that is wrong, and how.
    """
    path = Path(path)
    try:
        files = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
        entries = [(str(name), int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()]
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no {MANIFEST}; not a checkpoint, or not a whole one") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: {MANIFEST} is damaged ({type(error).__name__}: {error})") from None
    for name, size, digest in entries:
        if name.startswith(below) and (reason := _damage(path / name, size, digest)) is not None:
            raise CheckpointError(f"{path}: {name} {reason}")


def file_hashes(path: Path) -> dict[str, str]:
    """SHA-256 of a file, or of every file below a directory, by its name in there."""
    if path.is_file():
        return {path.name: _sha256(path)}
    return {p.relative_to(path).as_posix(): _sha256(p) for p in sorted(path.rglob("*")) if p.is_file()}


def clean(directory: Path) -> None:
    """Remove what a kill left behind, and bring back a checkpoint whose replacement never arrived."""
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if path.name.startswith(REPLACED):
            target = directory / path.name.removeprefix(REPLACED)
            if target.exists():
                shutil.rmtree(path)
            else:
                path.rename(target)
        elif path.name.startswith(TMP):
            log.info("removing an unfinished checkpoint: %s", path)
            path.unlink() if path.is_symlink() else shutil.rmtree(path)


def _steps(directory: Path) -> list[Path]:
    """Checkpoint directories, highest step first."""
    return (
        sorted((p for p in directory.iterdir() if p.name.isdigit()), key=lambda p: -int(p.name))
        if directory.is_dir()
        else []
    )


def _write_manifest(root: Path) -> None:
    files = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        files[path.relative_to(root).as_posix()] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        _sync(path)
    (root / MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
    for path in [root / MANIFEST, *(p for p in root.rglob("*") if p.is_dir()), root]:
        _sync(path)


def _swap_in(temporary: Path, target: Path) -> None:
    aside = target.with_name(f"{REPLACED}{target.name}")
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)  # a kill from here to the next rename is undone by clean()
    temporary.rename(target)
    _sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _point(name: str, target: Path) -> None:
    link = target.with_name(f"{TMP}{name}-{os.getpid()}")
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)
    link.replace(target.with_name(name))
    _sync(target.parent)


def _set_aside_later(directory: Path, step: int) -> None:
    """Later checkpoints than the newest one belong to a history that a new start or an early resume has left."""
    for path in _steps(directory):
        if int(path.name) > step:
            aside = path.with_name(path.name + SUPERSEDED)
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            log.warning("%s is later than step %d, which was just saved; kept as %s", path, step, aside.name)
    best = directory / BEST
    if best.is_symlink() and not best.exists():
        best.unlink()  # it was of that history


def _damage(path: Path, size: int, digest: str) -> str | None:
    try:
        found = path.stat().st_size
        if found != size:
            return f"has {found} bytes, {size} were written{_what_else(path)}"
        return None if _sha256(path) == digest else "is not what was written (SHA-256 differs)"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _what_else(path: Path) -> str:
    """What stands in a file's place where a copy went wrong."""
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "; it is a git-lfs pointer: fetch the file itself"
    return "; it is an HTML page: the download failed" if head.startswith((b"<!doctype html", b"<html")) else ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
