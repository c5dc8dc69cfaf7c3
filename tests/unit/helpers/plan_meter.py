"""Counting live memory op by op, on any device (meta too): what a plan of memory is held against."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Bytes of tensors made inside the block: those alive, and the most there ever were."""

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0
        self._seen = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        old = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs or {})) if isinstance(x, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and id(tensor.untyped_storage()) not in old:
                self._hold(tensor.untyped_storage())
        return out

    def _hold(self, storage):
        key = id(storage)
        if key in self._seen:
            return
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        self._seen[key] = weakref.ref(storage, lambda _: self._release(key, size))

    def _release(self, key, size):
        self._seen.pop(key, None)
        self.alive -= size


class SavedBytes:
    """Bytes that autograd keeps for the backward passes of a block: every storage once, parameters not."""

    def __init__(self, module):
        self._known = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
        self._kept = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def _keep(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._kept[storage._cdata] = storage
        return tensor

    def __enter__(self):
        self._hooks.__enter__()
        return self

    def __exit__(self, *error):
        self._hooks.__exit__(*error)

    @property
    def nbytes(self):
        return sum(storage.nbytes() for storage in self._kept.values())
