"""ManiSkill's batched API over its CPU physics: a stand-in for the GPU simulation, which needs a GPU to run.

E real CPU environments are stacked so that they look like one simulation with ``num_envs = E``: tensors carry a leading
axis E, ``step`` moves all of them, and ``reset`` takes ``options={"env_idx": ...}``. What upstream's 3.0.1 and a GPU do
otherwise than one environment on the CPU is done here too:

- a reset draws for all its environments together (a draw is of ``[len(env_idx), ...]``, one stream for all, seeded by
  the first), and the device's stream gives other numbers than the CPU's for the same seed;
- rows are written in ascending order of the environments;
- the controllers of every environment are reset, not only those of the named ones;
- pictures and infos are the simulator's own buffers, which the next capture or step overwrites;
- PhysX complains on file descriptor 2 (``complaint``).
"""

import os
from dataclasses import replace

import torch
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.envs.utils.randomization.batched_rng import BatchedRNG
from torch.overrides import TorchFunctionMode

from rlft_envs.maniskill.env import renew_physics
from rlft_envs.maniskill.row_draws import DRAWS, drawing_by_row
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


class Buffers:
    """Tensors that are written again and again in the same place, as those of a simulator on a GPU are."""

    def __init__(self):
        self._kept = {}

    def __call__(self, new, where=()):
        if isinstance(new, dict):
            return {name: self(value, (*where, name)) for name, value in new.items()}
        if not isinstance(new, torch.Tensor):
            return new
        return self._kept.setdefault(where, new.clone()).copy_(new)


class BufferedCamera(Stacked):
    """One camera of every environment."""

    def __init__(self, parts, buffers):
        super().__init__(parts)
        self._buffers = buffers

    def get_obs(self, **wanted):
        return self._buffers(stack([part.get_obs(**wanted) for part in self._parts]))


class StackedScene(Stacked):
    """The scenes, with cameras that keep their buffers."""

    def __init__(self, parts):
        super().__init__(parts)
        self.sensors = {name: BufferedCamera([p.sensors[name] for p in parts], Buffers()) for name in parts[0].sensors}


class DeviceStream(TorchFunctionMode):
    """Draws as a GPU does: from a stream of its own, whose numbers for a seed are not the CPU's."""

    def __init__(self, seed):
        super().__init__()
        self._stream = torch.Generator().manual_seed(seed + 1)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in DRAWS and kwargs.get("generator") is None:
            kwargs = {**kwargs, "generator": self._stream}
        return func(*args, **kwargs)


class OneOfBatch(TorchFunctionMode):
    """Environment k's draws of ``[1, ...]``, as row k of one draw of ``[n, ...]`` for all n; and numpy's likewise.

    The environments run one after another; the first that comes to the j-th draw makes it, the others take their rows.
    """

    def __init__(self, k, n, drawn, stream):
        super().__init__()
        self._k, self._n, self._drawn, self._stream, self._count = k, n, drawn, stream, 0

    def _row(self, draw):
        if self._count == len(self._drawn):
            self._drawn.append(draw())
        self._count += 1
        return self._drawn[self._count - 1][self._k : self._k + 1]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name not in DRAWS or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        assert name in ("rand", "randn"), f"this stand-in cannot draw torch.{name} for a batch"
        size = kwargs.pop("size", args[0] if args and isinstance(args[0], tuple) else args)
        return self._row(lambda: func((self._n, *size[1:]), **kwargs))

    def normal(self, mean, std, size):
        return self._row(lambda: self._stream.normal(mean, std, (self._n, *size[1:])))


class BatchedManiSkill(Stacked):
    """One simulation of ``settings.num_envs`` environments, as upstream's draws and all."""

    _enhanced_determinism, _batched_rng_backend = False, "numpy:random_state"
    _episode_seed = _batched_episode_rng = None
    complaint = b""

    def __init__(self, settings):
        super().__init__([build_base_env(replace(settings, sim_backend="cpu")) for _ in range(settings.num_envs)])
        self.num_envs = settings.num_envs
        self.agent = StackedAgent([env.agent for env in self._parts])
        self.scene = StackedScene([env.scene for env in self._parts])
        self.single_action_space = self._parts[0].single_action_space
        self._info = Buffers()

    def step(self, action):
        os.write(2, self.complaint)
        *others, info = zip(*(env.step(row(action, i)) for i, env in enumerate(self._parts)))
        return (*(stack(list(out)) for out in others), self._info(stack(list(info))))

    def get_info(self):
        return stack([env.get_info() for env in self._parts])

    def get_reward(self, obs, action, info):
        return torch.cat([env.get_reward(obs, row(action, i), row(info, i)) for i, env in enumerate(self._parts)])

    @property
    def compose_image(self):
        composers = [env.compose_image for env in self._parts]  # a task without: no such attribute here either
        return lambda name, rgb, seen: torch.cat([f(name, row(rgb, i), row(seen, i)) for i, f in enumerate(composers)])

    @property
    def get_language_instruction(self):
        says = [env.get_language_instruction for env in self._parts]
        return lambda: [say()[0] for say in says]

    def _set_episode_rng(self, seed, env_idx):
        BaseEnv._set_episode_rng(self, seed, env_idx)

    def reset(self, seed, options):
        self._set_episode_rng(seed, options["env_idx"])
        with DeviceStream(int(self._episode_seed[0])):
            self._initialize_episode(options["env_idx"], {k: v for k, v in options.items() if k != "env_idx"})
        for env in self._parts:
            env.agent.controller.reset()  # upstream's fault: the mask is all ones again at this point
        return {}, self.get_info()

    def _initialize_episode(self, env_idx, options):
        drawn, named = [], env_idx.tolist()
        for k, i in enumerate(sorted(named)):
            part, of_batch = self._parts[i], OneOfBatch(k, len(named), drawn, self._episode_rng)

            def seeded(seed, env_idx, part=part, of_batch=of_batch, k=k, i=i):
                part._episode_seed = self._episode_seed[k : k + 1]
                part._episode_rng = of_batch
                part._batched_episode_rng = BatchedRNG.from_rngs(self._batched_episode_rng.rngs[i : i + 1])

            part._set_episode_rng = seeded
            renew_physics(part)
            with of_batch:
                part.reset(seed=0, options={name: value[k : k + 1] for name, value in options.items()})

    def set_state_dict(self, state, env_idx):
        named = env_idx.tolist()
        assert named == sorted(named), "ManiSkill writes the rows in ascending order of the environments"
        for k, i in enumerate(named):
            self._parts[i].set_state_dict(row(state, k))

    def close(self):
        for env in self._parts:
            env.close()


def build_by_row(settings):
    """The stand-in as the library builds the simulation: its draws by row."""
    return drawing_by_row(BatchedManiSkill)(settings)
