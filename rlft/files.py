"""The files that carry a stage's result: plain JSON, written whole or not at all."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlft.errors import RlftError


def write_stage(run_dir: Path, stage: str, result: Mapping[str, Any]) -> Path:
    """Write ``<stage>.json`` (``collect``, ``sft``, ``rl``, ``eval_<label>``) into the run directory, as one piece.

    The directory is made where it is missing; numbers that are not finite are written as null.
    """
    path = run_dir / f"{stage}.json"
    write_text_atomically(path, json.dumps(to_json(result), indent=2, allow_nan=False) + "\n")
    return path


def read_stage(run_dir: Path, stage: str) -> dict[str, Any]:
    """Read what :func:`write_stage` wrote.

    Raises:
        RlftError: the stage has not been run in this directory, or its file is damaged.
    """
    path = run_dir / f"{stage}.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RlftError(f"{path}: not there; has the stage {stage!r} been run with this output.dir?") from error
    except ValueError as error:
        raise RlftError(f"{path}: not valid JSON ({error}); run the stage {stage!r} again") from error
    if not isinstance(result, dict):
        raise RlftError(f"{path}: expected a JSON object, found {type(result).__name__}")
    return result


def to_json(value: Any) -> Any:
    """Plain JSON values: numpy and torch scalars become numbers, paths texts, non-finite numbers null."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    try:
        return to_json(value.tolist())  # numpy and torch, arrays and scalars alike
    except AttributeError:
        raise TypeError(f"{value!r} ({type(value).__name__}) has no JSON form") from None


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no spaces, 1.0 written as 1, and no number that is not finite.

    Raises:
        ValueError: a number is not finite.
    """

    def plain(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {str(key): plain(part) for key, part in item.items()}
        if isinstance(item, list | tuple):
            return [plain(part) for part in item]
        return int(item) if isinstance(item, float) and item.is_integer() else item

    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(value: Any) -> str:
    """SHA-256 of :func:`canonical_json`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_text_atomically(path: Path, text: str) -> None:
    """As :func:`write_atomically`, in UTF-8."""
    write_atomically(path, text.encode("utf-8"))


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file; a reader sees the old one or the new one, never a part. Its directory is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
