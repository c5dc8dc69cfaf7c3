"""Counts what would make a GPU wait: values that the host asks a tensor for. It sees them on CPU tensors too."""

from collections import Counter

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

METHODS = ["item", "tolist", "numpy", "cpu", "__array__", "__bool__", "__int__", "__float__", "__index__"]
METHODS += ["__contains__"]
OPERATORS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim", "equal")
"""Operators whose result's value or size the host must know. METHODS are the ways from a tensor to a number."""


class DeviceReads:
    """``with DeviceReads() as reads``: afterwards ``reads.counts`` names what was read and how often.

    An index that is a mask counts too: its result's size is read.
    """

    def __init__(self):
        self.counts = Counter()
        self._modes = (_Methods(self.counts), _Operators(self.counts))

    def __enter__(self):
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *raised):
        for mode in reversed(self._modes):
            mode.__exit__(*raised)


class _Methods(TorchFunctionMode):
    def __init__(self, counts):
        super().__init__()
        self._counts = counts

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if (name := getattr(func, "__name__", "")) in METHODS:
            self._counts[name] += 1
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, counts):
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in OPERATORS:
            self._counts[name] += 1
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            self._counts["index by mask"] += sum(i is not None and i.dtype == torch.bool for i in args[1])
        return func(*args, **(kwargs or {}))
