"""ManiSkill's batched API over its CPU physics: a stand-in for the GPU simulation, which needs a GPU to run.

E real CPU environments are stacked so that they look like one simulation with ``num_envs = E``: tensors carry a leading
axis E, ``step`` moves all of them, and ``reset`` takes ``options={"env_idx": ...}``. The known fault of mani_skill
3.0.1's partial reset is reproduced on the real controllers: those of every environment are reset, not only the named
ones.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from rlft_envs.maniskill.physics import renew_physics
from rlft_envs.maniskill.setup import build_base_env


def stack(parts):
    """Join what E environments returned: tensors along the first axis, dictionaries and lists entry by entry."""
    first = parts[0]
    if isinstance(first, torch.Tensor):
        return torch.cat([part if part.ndim else part[None] for part in parts])
    if isinstance(first, dict):
        return {name: stack([part[name] for part in parts]) for name in first}
    if isinstance(first, list):
        return [stack(list(entries)) for entries in zip(*parts)]
    if isinstance(first, bool | int | float | str | type(None) | torch.device):
        return first
    return Stacked(parts)


def row(tree, i):
    """Environment i's part of stacked tensors, with the leading axis kept."""
    if isinstance(tree, dict):
        return {name: row(branch, i) for name, branch in tree.items()}
    return tree[i : i + 1]


class Stacked:
    """E objects that answer as one."""

    def __init__(self, parts):
        self._parts = parts

    def __getattr__(self, name):
        return stack([getattr(part, name) for part in self._parts])

    def __call__(self, *args, **kwargs):
        return stack([part(*args, **kwargs) for part in self._parts])


class StackedAgent(Stacked):
    """The robots; setting controller states is split by environment."""

    def set_controller_state(self, state):
        for i, agent in enumerate(self._parts):
            agent.set_controller_state(row(state, i))


class BatchedManiSkill(Stacked):
    """One simulation of ``settings.num_envs`` environments."""

    def __init__(self, settings):
        super().__init__([build_base_env(replace(settings, sim_backend="cpu")) for _ in range(settings.num_envs)])
        self.num_envs = settings.num_envs
        self.agent = StackedAgent([env.agent for env in self._parts])
        self.single_action_space = self._parts[0].single_action_space

    def step(self, action):
        return tuple(stack(list(out)) for out in zip(*(env.step(row(action, i)) for i, env in enumerate(self._parts))))

    def get_reward(self, obs, action, info):
        return torch.cat([env.get_reward(obs, row(action, i), row(info, i)) for i, env in enumerate(self._parts)])

    @property
    def compose_picture(self):
        composers = [env.compose_picture for env in self._parts]  # a task without: no such attribute here either
        return lambda name, rgb, seen: torch.cat(
            [compose(name, row(rgb, i), row(seen, i)) for i, compose in enumerate(composers)]
        )

    @property
    def get_language_instruction(self):
        says = [env.get_language_instruction for env in self._parts]
        return lambda: [say()[0] for say in says]

    def reset(self, seed, options):
        named = options["env_idx"].tolist()
        if len(named) > 1:
            raise NotImplementedError("several environments would share one stream; this stand-in cannot imitate that")
        for i in named:
            renew_physics(self._parts[i])
            self._parts[i].reset(seed=seed)
        for env in self._parts:
            env.agent.controller.reset()  # upstream's fault: the mask is all ones again at this point
        return {}, self.get_info()

    def set_state_dict(self, state, env_idx):
        named = env_idx.tolist()
        assert named == sorted(named), "ManiSkill writes the rows in ascending order of the environments"
        for k, i in enumerate(named):
            self._parts[i].set_state_dict(row(state, k))

    def close(self):
        for env in self._parts:
            env.close()
