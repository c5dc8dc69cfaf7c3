"""Each environment of a batched reset draws from streams of its own, so that a seed names an episode.

Upstream draws for all environments of a reset from one torch stream, seeded by the first one's seed, on the device of
the simulation, and the table scene draws joint noise from one numpy stream. An episode then depends on who else is
reset, and on the device. Here a task initialises one environment after another, each from a torch stream on the CPU
and a numpy stream that its seed starts: what one environment with CPU physics does. Imported lazily, with ManiSkill.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mani_skill.envs.utils.randomization.batched_rng import BatchedRNG
from torch.overrides import TorchFunctionMode

from rlft_envs.errors import EnvSetupError

log = logging.getLogger(__name__)

IN_PLACE = ("uniform_", "normal_", "random_", "exponential_", "bernoulli_", "cauchy_", "geometric_", "log_normal_")
BY_VALUE = ("normal", "bernoulli", "multinomial", "poisson", "binomial", "_standard_gamma", "_sample_dirichlet")
BY_SHAPE = ("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like")
DRAWS = {*IN_PLACE, *BY_VALUE, *BY_SHAPE}
FRESH = 624  # the position of a RandomState that nothing was drawn from


def drawing_by_row(task: type) -> type:
    """Subclass a task so that each environment of a reset draws from the streams of its own seed.

    A reset then takes ``seed=[...]``, and tensors in its options, one per entry of ``options["env_idx"]``, whose
    entries must ascend, because ManiSkill writes rows in that order. ``_initialize_episode`` is called for one
    environment at a time, with its seed in ``_episode_seed[0]``.
    """

    class DrawsByRow(task):
        _episode_seed: Any
        _episode_rng: Any
        _batched_episode_rng: Any

        def _set_episode_rng(self, seed: Any, env_idx: torch.Tensor) -> None:
            rows, seeds = env_idx.tolist(), [] if seed is None else [int(s) for s in np.atleast_1d(seed)]
            if len(seeds) != len(rows):
                raise EnvSetupError(f"{task.__name__}: {len(seeds)} seeds for {len(rows)} environments; give one each")
            if self._episode_seed is None:
                self._episode_seed = np.zeros(self.num_envs, np.int64)
                self._batched_episode_rng = BatchedRNG.from_seeds(self._episode_seed)
            self._episode_seed[rows] = seeds
            for i, stream in zip(rows, BatchedRNG.from_seeds(seeds).rngs):
                self._batched_episode_rng.rngs[i] = stream
            self._episode_rng = self._batched_episode_rng.rngs[rows[0]]

        def _reconfigure(self, options: dict) -> None:
            super()._reconfigure(options)
            if any(stream.get_state()[2] != FRESH for stream in self._batched_episode_rng.rngs):
                log.warning("%s draws geometry when it is built: it belongs to the slot, not the seed", task.__name__)

        def _initialize_episode(self, env_idx: torch.Tensor, options: dict) -> None:
            every_seed, first_stream, mask = self._episode_seed, self._episode_rng, self.scene._reset_mask
            try:
                for k, i in enumerate(env_idx.tolist()):
                    one = {name: x[k : k + 1] if isinstance(x, torch.Tensor) else x for name, x in options.items()}
                    self._episode_seed, self._episode_rng = every_seed[i : i + 1], self._batched_episode_rng.rngs[i]
                    self.scene._reset_mask = torch.zeros_like(mask)  # what a task writes reaches this environment alone
                    self.scene._reset_mask[i] = True
                    with DrawsOnCpu(int(every_seed[i])):
                        super()._initialize_episode(env_idx[k : k + 1], one)
            finally:
                self._episode_seed, self._episode_rng, self.scene._reset_mask = every_seed, first_stream, mask

    DrawsByRow.__name__ = DrawsByRow.__qualname__ = task.__name__
    return DrawsByRow


class DrawsOnCpu(TorchFunctionMode):
    """While entered, what torch draws without a ``generator``, on any device, comes from a CPU stream of its own.

    Not the default stream, seeded: simulations of several threads draw at once.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._stream = torch.Generator().manual_seed(seed)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Serve draws; everything else runs as it is."""
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name not in DRAWS or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        kwargs["generator"] = self._stream
        if name in IN_PLACE:
            return args[0].copy_(func(torch.empty_like(args[0], device=self._stream.device), *args[1:], **kwargs))
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        device = kwargs.pop("device", None) or (tensors[0].device if tensors else torch.get_default_device())
        with self._stream.device:  # where draws are made that name no device; the default may be a GPU
            drawn = func(*map(_to_cpu, args), **{key: _to_cpu(value) for key, value in kwargs.items()})
        return drawn.to(device)


def _to_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, torch.Tensor) else value
