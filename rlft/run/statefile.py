"""Nested training state on disk: tensors as safetensors, the rest as JSON. No pickle: loading runs no code."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

TENSORS, SKELETON = "tensors.safetensors", "state.json"
MARK = "__rlft__"  # a mapping with this key is not a plain mapping but one of the encodings below


def write_state(directory: Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts, lists and tuples of tensors, numbers, texts, booleans and None.

    Raises:
        TypeError: a value has another type; the message names its path.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    skeleton = json.dumps(_encode(state, "", tensors), allow_nan=False)
    save_file(tensors, directory / TENSORS)
    (directory / SKELETON).write_text(skeleton, encoding="utf-8")


def read_state(directory: Path) -> dict[str, Any]:
    """Read what :func:`write_state` wrote: the same types, key types included; tensors on the CPU."""
    skeleton = (directory / SKELETON).read_text(encoding="utf-8")
    return dict(_decode(json.loads(skeleton), load_file(directory / TENSORS)))


def _encode(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        # Clones, because safetensors refuses two names for one storage.
        name = f"{len(tensors)}{path}"
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {MARK: "tensor", "name": name}
    if isinstance(value, Mapping):
        encoded = [(key, _encode(item, f"{path}/{key}", tensors)) for key, item in value.items()]
        if all(isinstance(key, str) and key != MARK for key, _ in encoded):
            return dict(encoded)
        # Optimiser state is keyed by integers, which JSON would turn into texts.
        return {MARK: "items", "items": [[_encode(key, path, tensors), item] for key, item in encoded]}
    if isinstance(value, tuple):
        return {MARK: "tuple", "items": [_encode(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    if isinstance(value, list):
        return [_encode(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {MARK: "float", "value": repr(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    kind = type(value).__name__
    raise TypeError(f"training state {path or '/'}: a {kind} cannot be saved; use plain values or tensors")


def _decode(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    match value.get(MARK):
        case "tensor":
            return tensors[value["name"]]
        case "items":
            return {_decode(key, tensors): _decode(item, tensors) for key, item in value["items"]}
        case "tuple":
            return tuple(_decode(item, tensors) for item in value["items"])
        case "float":
            return float(value["value"])
    return {key: _decode(item, tensors) for key, item in value.items()}
