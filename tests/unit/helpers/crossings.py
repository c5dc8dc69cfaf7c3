"""Where the host would wait for an accelerator: found on the meta device, which is no CPU on every machine.

A tensor on the meta device has no numbers, so what reads one is found wherever it is written; what the host sends there
is found by its ops, and what it sends as Python numbers (which meta makes without an op) by the functions that do so.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
LIBRARY = str(Path(__file__).resolve().parents[3] / "rlft")
READS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"}
LISTS = {"tensor", "as_tensor", "asarray", "new_tensor"}  # which take Python numbers


@dataclass
class Crossings:
    """What passed between host and device, each entry ``file:function operation``."""

    reads: list[str] = field(default_factory=list)  # the host waited for a number
    sent: list[str] = field(default_factory=list)  # a tensor went to the device
    lists: list[str] = field(default_factory=list)  # Python numbers went there, for which the host waits as well

    def __enter__(self) -> "Crossings":
        self._modes = [_Functions(self), _Ops(self)]
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Functions(TorchFunctionMode):
    def __init__(self, found: Crossings) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in LISTS and isinstance(out, torch.Tensor) and out.is_meta and _is_python(args[-1]):
            self.found.lists.append(_here(name))
        if name in ("__getitem__", "__setitem__") and args[0].is_meta and _has_list(args[1]):
            self.found.lists.append(_here(name))
        return out


class _Ops(TorchDispatchMode):
    def __init__(self, found: Crossings) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func._schema.name.removeprefix("aten::")
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if first is not None and first.is_meta and name in READS:
            self.found.reads.append(_here(name))
            return 1 if name == "_local_scalar_dense" else True
        if name == "_to_copy" and first is not None:
            target = torch.device(kwargs.get("device") or first.device)
            if first.is_meta and target != META:
                self.found.reads.append(_here(name))
                return torch.zeros(first.shape, dtype=kwargs.get("dtype") or first.dtype)
            if not first.is_meta and target == META:
                self.found.sent.append(_here(name))
        if name == "copy_" and first.is_meta != args[1].is_meta:
            (self.found.sent if first.is_meta else self.found.reads).append(_here(name))
            if not first.is_meta:
                return first
        if name.startswith("index") and first.is_meta:
            on_host = [x for x in _leaves(args[1:]) if not x.is_meta and x.ndim]
            self.found.sent.extend(_here(name) for _ in on_host)
        return func(*args, **kwargs)


def _here(operation: str) -> str:
    """The innermost place in the library that led here."""
    frame = sys._getframe(2)
    while frame is not None and not frame.f_code.co_filename.startswith(LIBRARY):
        frame = frame.f_back
    place = "elsewhere" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"
    return f"{place} {operation}"


def _leaves(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [x for item in value for x in _leaves(item)] if isinstance(value, list | tuple) else []


def _is_python(value) -> bool:
    return isinstance(value, bool | int | float | list | tuple)


def _has_list(index) -> bool:
    return isinstance(index, list) or (isinstance(index, tuple) and any(isinstance(x, list | tuple) for x in index))
