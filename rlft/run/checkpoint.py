"""Checkpoints on disk: whole or absent, proved by a manifest, newest first.

Layout of a checkpoint directory::

    000010/pretrained_model/   the policy, in lerobot's layout, with a manifest of its own
    000010/state.pt            everything else that resuming needs: plain values and tensors, which torch.load reads
                               without running code of the file
    000010/manifest.json       size and SHA-256 of the rest (rlft.manifest), and of that manifest
    last -> 000010             the newest one
    best -> 000005             the one of the best evaluation, which stays when it is old

A checkpoint is written under a hidden temporary name, synced, and renamed: a kill at any moment leaves the
earlier ones as they were. Every byte is hashed once when it is written, and once more by :func:`find_resume`.
"""

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from rlft.errors import DivergedError, RlftError
from rlft.manifest import find_damage, write_manifest
from rlft.placement import HOST, to_host

log = logging.getLogger(__name__)

MODEL, STATE, LAST, BEST = "pretrained_model", "state.pt", "last", "best"
TMP = ".tmp-"  # prefix of what a kill may leave behind
SUPERSEDED = ".superseded"


class CheckpointError(RlftError):
    """A checkpoint that cannot be written, or that is not what was written."""


def save(
    directory: Path, step: int, write: Callable[[Path], None], state: Mapping[str, Any], keep: int, best: bool = False
) -> Path:
    """Write one checkpoint and remove the oldest ones; answers where it is.

    Args:
        directory: the directory of all checkpoints of a stage; made where it is missing.
        step: its number; checkpoints of that step and of later ones are of a history that this one leaves: set aside.
        write: writes the policy into the (existing, empty) directory that it is given.
        state: nested dicts, lists and tuples of tensors, numbers, texts, booleans and None.
        keep: how many of the newest stay, at least 1; the best one stays as well.
        best: this one is the best so far.

    Raises:
        CheckpointError: it cannot be written (disk full, read-only); earlier checkpoints are untouched.
        DivergedError: a tensor of the state holds NaN or infinity; as above.
        TypeError: a value of the state has another type; as above.
    """
    target = directory / f"{step:06d}"
    plain = _plain(state, f"{target}: not written, because training_state")
    temporary = directory / f"{TMP}{target.name}-{os.getpid()}"
    try:
        (temporary / MODEL).mkdir(parents=True)
        write(temporary / MODEL)
        _write_state(temporary / STATE, plain)
        write_manifest(temporary)
        for path in (*temporary.rglob("*"), temporary):
            _sync(path)
        _set_aside(directory, step)
        temporary.rename(target)
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
    best_one = (directory / BEST).resolve()
    for old in _steps(directory)[max(keep, 1) :]:
        if old.resolve() != best_one:
            shutil.rmtree(old)
    return target


def _plain(value: Any, name: str) -> Any:
    """A copy of a state on the host that can be read back without running code; ``name`` begins what errors say."""
    if isinstance(value, Mapping):
        return {_plain(key, f"a key of {name}"): _plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(item, f"{name}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            # Such a weight or moment poisons every step after it: the newest checkpoint stays the newest.
            raise DivergedError(f"{name} holds NaN or infinity; the last whole one stands")
        return to_host(value.detach()).clone()  # a view would be written with all that it is a view of
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}; use plain values or tensors")


def _write_state(path: Path, state: Any) -> None:
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's about an archive without an end hides why there is none: a full disk
            raise error.__context__ or error from None


def newest_valid(directory: Path) -> Path | None:
    """The newest checkpoint that is what was written, or None; each broken one is named with its reason in the log."""
    for path in directory.glob(f"{TMP}*"):
        log.info("removing an unfinished checkpoint: %s", path)
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    for path in _steps(directory):
        if (reason := find_damage(path)) is None:
            return path
        log.warning("skipping a broken checkpoint: %s: %s", path, reason)
    return None


def find_resume(resume: str | None, directory: Path) -> Path | None:
    """The checkpoint that the setting ``resume`` means; None to start anew, as for ``auto`` where none is whole.

    Raises:
        CheckpointError: the named directory is no whole checkpoint; says which file of it is wrong, and how. Or there
            are checkpoints of an earlier run, and nobody said to continue it.
    """
    if resume not in (None, "auto"):
        if (reason := find_damage(Path(resume))) is not None:
            raise CheckpointError(f"{resume}: {reason}")
        return Path(resume)
    newest = newest_valid(directory)
    if resume is None and newest is not None:
        raise CheckpointError(
            f"{directory} holds checkpoints of an earlier run; continue it with resume=auto, "
            "or choose another name or output.dir"
        )
    return newest


def load_state(path: Path) -> dict[str, Any]:
    """Read the training state of a checkpoint that :func:`find_resume` has verified; tensors on the host."""
    return torch.load(path / STATE, map_location=HOST, weights_only=True)


def _steps(directory: Path) -> list[Path]:
    """Checkpoint directories, highest step first."""
    found = (p for p in directory.glob("*") if p.name.isdigit())
    return sorted(found, key=lambda p: -int(p.name))


def _point(name: str, target: Path) -> None:
    link = target.with_name(f"{TMP}{name}-{os.getpid()}")
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)
    link.replace(target.with_name(name))
    _sync(target.parent)


def _set_aside(directory: Path, step: int) -> None:
    """Checkpoints of this step or later belong to a history that a new start or an early resume has left."""
    for path in _steps(directory):
        if int(path.name) >= step:
            aside = path.with_name(path.name + SUPERSEDED)
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            log.warning("%s is not earlier than step %d, which is saved now; kept as %s", path, step, aside.name)
    best = directory / BEST
    if best.is_symlink() and not best.exists():
        best.unlink()  # it was of that history


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
