"""Statistics of a run, and the files that carry a stage's result."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlft.errors import RlftError

if TYPE_CHECKING:
    import torch

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
PACKAGES = ("rlft", "torch", "lerobot", "transformers", "mani-skill", "sapien", "gymnasium", "numpy", "hydra-core")


def wilson_interval(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a success rate (Wilson 1927, J. Am. Stat. Assoc. 22:209).

    Args:
        successes: 0..trials.
        trials: at least 1.
        z: quantile of the normal distribution; 95 % by default.

    Returns:
        lower and upper bound in [0, 1].

    Raises:
        ValueError: the counts contradict each other.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"successes={successes}, trials={trials}: wanted 0 <= successes <= trials and trials >= 1")
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # At the ends the exact bound is 0 or 1; rounding must not move it inside.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high


def difference_interval(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float]:
    """Newcombe's 95 % interval of the difference of two independent rates, from their Wilson intervals.

    Method 10 of Newcombe 1998, Statistics in Medicine 17:873.

    Args:
        first: successes and trials.
        second: successes and trials of the rate that is subtracted.

    Returns:
        lower and upper bound of ``first - second`` in [-1, 1].
    """
    (p, (low_p, high_p)), (q, (low_q, high_q)) = ((wins / n, wilson_interval(wins, n)) for wins, n in (first, second))
    return (p - q) - math.hypot(p - low_p, high_q - q), (p - q) + math.hypot(high_p - p, q - low_q)


def explained_variance(predicted: torch.Tensor, target: torch.Tensor) -> float:
    """1 - Var(target - predicted) / Var(target): 1 is perfect, 0 no better than the mean; NaN for a constant target.

    Args:
        predicted: any shape.
        target: the same shape.
    """
    if predicted.shape != target.shape:
        raise ValueError(f"predicted {tuple(predicted.shape)} and target {tuple(target.shape)} differ in shape")
    variance = float(target.double().var(unbiased=False)) if target.numel() else 0.0
    if variance == 0.0:
        return math.nan
    return 1.0 - float((target.double() - predicted.double()).var(unbiased=False)) / variance


def write_stage(run_dir: Path, stage: str, result: Mapping[str, Any]) -> Path:
    """Write ``<stage>.json`` into the run directory, whole or not at all.

    Args:
        run_dir: made where it is missing.
        stage: ``collect``, ``sft``, ``rl`` or ``eval_<label>``.
        result: plain values; non-finite numbers are written as null.
    """
    path = Path(run_dir) / f"{stage}.json"
    write_text_atomically(path, json.dumps(to_json(result), indent=2, allow_nan=False) + "\n")
    return path


def read_stage(run_dir: Path, stage: str) -> dict[str, Any]:
    """Read what :func:`write_stage` wrote.

    Raises:
        RlftError: the stage has not been run in this directory, or its file is damaged.
    """
    path = Path(run_dir) / f"{stage}.json"
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
    """Replace a file by a new text; a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def machine_facts() -> dict[str, Any]:
    """Versions and hardware, for the record; reads package metadata and imports nothing heavy."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu_cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "versions": versions,
    }
