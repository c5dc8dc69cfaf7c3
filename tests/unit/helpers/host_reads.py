"""What makes the host wait for a device, counted; and an environment whose arrays are tensors, as on a GPU."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS = ("cpu", "numpy", "tolist")  # as methods: on the CPU they are not dispatched
WAITS = ("_local_scalar_dense", "nonzero")  # item, float, bool, int; a size that the data decides


class HostReads(TorchDispatchMode):
    """Names, in order, of everything in the block that would wait for a GPU if the tensors were there."""

    def __enter__(self):
        self.seen, self._methods = [], {name: getattr(torch.Tensor, name) for name in READS}
        for name, method in self._methods.items():
            setattr(torch.Tensor, name, self._counted(name, method))
        return super().__enter__()

    def __exit__(self, *error):
        for name, method in self._methods.items():
            setattr(torch.Tensor, name, method)
        return super().__exit__(*error)

    def _counted(self, name, method):
        def read(tensor, *args, **kwargs):
            self.seen.append(name)
            return method(tensor, *args, **kwargs)

        return read

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::")
        if name in WAITS:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class TensorEnv:
    """Gives and takes tensors, and refuses actions that are not finite; ``bad`` says whose are made so."""

    def __init__(self, env):
        self.env, self.spec, self.bad = env, env.spec, None

    def reset(self, env_ids, seeds):
        return _tensors(self.env.reset(env_ids, seeds))

    def step_chunk(self, actions):
        if self.bad is not None:
            actions[self.bad] = torch.nan
        step = self.env.step_chunk(_hidden(actions))
        return replace(_tensors(step), obs=_tensors(step.obs))

    def close(self):
        self.env.close()


def _hidden(tensor):
    """The tensor's memory as an array; a real simulator reads it on the GPU."""
    return np.from_dlpack(tensor)


def _tensors(parts):
    arrays = {x.name: getattr(parts, x.name) for x in fields(parts)}
    return replace(parts, **{k: torch.from_numpy(v) for k, v in arrays.items() if isinstance(v, np.ndarray)})
