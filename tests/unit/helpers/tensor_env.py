"""An environment whose arrays are tensors, as on a GPU."""

from dataclasses import fields, replace

import numpy as np
import torch


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
