"""Strict loading: every weight comes from the file, or the error says which one did not, and why.

Two key layouts are read: lerobot's own (``model.`` before every key) and that of ``lerobot/pi0_base`` (no
prefix, and no ``embed_tokens``, because the language head holds the same numbers).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlft.errors import DivergedError, RlftError
from rlft.manifest import what_instead

PREFIX = "model."
HEAD = "paligemma_with_expert.paligemma.lm_head.weight"
EMBEDDING = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
SHOWN = 5  # names listed in an error


class WeightsError(RlftError):
    """A checkpoint file that cannot be trusted."""

    exit_code = 2


def load_weights(model: torch.nn.Module, path: Path, device: torch.device) -> None:
    """Fill lerobot's core with the weights of a safetensors file, completely or not at all.

    The core is on the meta device (it is materialised on ``device``), or on ``device``.

    Raises:
        WeightsError: the file is missing or no safetensors file; keys are missing, unexpected or of another
            shape; a tensor holds NaN or infinity. Names file and keys.
    """
    targets, state = model.state_dict(), {}
    with _opened(path, targets) as (file, stored):
        for key, want in targets.items():
            tensor = file.get_tensor(stored[key])
            if not bool(torch.isfinite(tensor).all()):
                raise WeightsError(f"{path}: {key} holds NaN or infinity; the run that wrote it had diverged.")
            state[key] = tensor.to(device=device, dtype=want.dtype, copy=True)
    on_meta = any(tensor.is_meta for tensor in targets.values())
    model.load_state_dict(state, strict=True, assign=on_meta)


def check_weights(path: Path, targets: Mapping[str, Tensor]) -> None:
    """Raise what :func:`load_weights` can find without reading a tensor: is the file whole, and its keys and shapes.

    The targets only say shape; they may be on the meta device.
    """
    with _opened(path, targets):
        pass


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write lerobot's own layout; DivergedError, and nothing is written, where a weight is NaN or infinite."""
    state = {PREFIX + key: tensor.detach().contiguous() for key, tensor in model.state_dict().items()}
    if bad := [key for key, tensor in state.items() if not bool(torch.isfinite(tensor).all())]:
        shown = ", ".join(bad[:SHOWN])
        raise DivergedError(f"{path}: not written, because {len(bad)} tensors hold NaN or infinity: {shown}")
    save_file(state, path, metadata={"format": "pt"})


def check_file(path: Path) -> None:
    """Raise a WeightsError in words for what is missing, a directory, empty, a Git LFS pointer, or a web page."""
    if not path.is_file():
        there = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else "no such directory"
        raise WeightsError(f"{path}: there is no such file (in its place: {there}).")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path}: the file is empty; a download or a copy was cut off at its start.")
    if what := what_instead(path):
        raise WeightsError(f"{path}: this is {what}.")


@contextmanager
def _opened(path: Path, targets: Mapping[str, Tensor]) -> Iterator[tuple[Any, dict[str, str]]]:
    """The open file, once its keys and shapes fit; and core key -> key in the file."""
    check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            stored = {key.removeprefix(PREFIX): key for key in file.keys()}  # noqa: SIM118 - not a dict
            if EMBEDDING in targets and EMBEDDING not in stored and HEAD in stored:
                stored[EMBEDDING] = stored[HEAD]
            _compare(path, targets, {key: tuple(file.get_slice(name).get_shape()) for key, name in stored.items()})
            yield file, stored
    except SafetensorError as error:
        raise WeightsError(f"{path}: no whole safetensors file ({error}). Copy or download it again.") from error


def _compare(path: Path, targets: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    found = {
        "missing": [key for key in targets if key not in shapes],
        "unexpected": [key for key in shapes if key not in targets],
        "of another shape": [
            f"{key} is {list(shapes[key])}, wanted {list(want.shape)}"
            for key, want in targets.items()
            if shapes.get(key, want.shape) != tuple(want.shape)
        ],
    }
    faults = [
        f"{len(items)} {label}: {', '.join(items[:SHOWN])}{' ...' if len(items) > SHOWN else ''}"
        for label, items in found.items()
        if items
    ]
    if faults:
        raise WeightsError(
            f"{path}: the weights do not fit the model; {'; '.join(faults)}. Check model.kind and model.small against "
            "the checkpoint; nothing was loaded."
        )
