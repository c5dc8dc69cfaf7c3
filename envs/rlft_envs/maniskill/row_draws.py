"""Each environment of a batched reset draws from streams of its own, so that a seed names an episode.

Upstream draws for all environments of a reset from one torch stream, seeded by the first one's seed, on the device of
the simulation, and the table scene draws joint noise from one numpy stream. An episode then depends on who else is
reset, and on the device. Here row k of every draw in ``_initialize_episode`` comes from a torch stream on the CPU and
a numpy stream that environment k's seed starts, which is what one environment with CPU physics draws from.

What a task may draw therefore: arrays whose first axis is ``len(env_idx)``, as many whatever the numbers are. Other
shapes are refused. Imported lazily; importing it imports ManiSkill.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from mani_skill.envs.utils.randomization.batched_rng import BatchedRNG
from mani_skill.envs.utils.randomization.samplers import UniformPlacementSampler
from torch.overrides import TorchFunctionMode

from rlft_envs.errors import EnvSetupError

log = logging.getLogger(__name__)

SIZED = ("rand", "randn", "randint")  # of a given size; so is "normal" with two numbers
LIKE: dict[str, Callable[..., Any]] = {
    "rand_like": torch.rand,
    "randn_like": torch.randn,
    "randint_like": torch.randint,
}
BY_VALUE = ("normal", "bernoulli", "multinomial", "poisson", "binomial", "_standard_gamma", "_sample_dirichlet")
IN_PLACE = ("uniform_", "normal_", "random_", "exponential_", "bernoulli_", "cauchy_", "geometric_", "log_normal_")
DRAWS = {*SIZED, *LIKE, *BY_VALUE, *IN_PLACE, "randperm"}
NUMPY_SIZE_AT = {"normal": 2, "uniform": 2, "randint": 2, "choice": 1, "random_sample": 0, "standard_normal": 0}
"""Method of a RandomState -> the position of its argument ``size``."""
NUMPY_DIMENSIONS = {"rand": "random_sample", "randn": "standard_normal"}  # the same, of dimensions as arguments
FRESH = 624  # the position of a RandomState that nothing was drawn from

_rows_drawn: ContextVar[RowDraws | None] = ContextVar("rows_drawn", default=None)


def drawing_by_row(task: type) -> type:
    """Subclass a task so that each environment of a reset draws from the streams of its own seed.

    A reset then takes ``seed=[...]``, one per entry of ``options["env_idx"]``, whose entries must ascend, because
    ManiSkill writes rows in that order. While an episode is initialised, ``_episode_seed[k]`` is the k-th one's seed.
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
            rows, every_seed, first_stream = env_idx.tolist(), self._episode_seed, self._episode_rng
            self._episode_seed = every_seed[rows]
            self._episode_rng = RowNumbers([self._batched_episode_rng.rngs[i] for i in rows], task.__name__)
            try:
                with RowDraws(self._episode_seed.tolist(), task.__name__):
                    super()._initialize_episode(env_idx, options)
            finally:
                self._episode_seed, self._episode_rng = every_seed, first_stream

    DrawsByRow.__name__ = DrawsByRow.__qualname__ = task.__name__
    return DrawsByRow


class RowDraws(TorchFunctionMode):
    """While entered, row k of what torch draws without a ``generator`` comes from a CPU generator of seed k."""

    def __init__(self, seeds: Sequence[int], task: str) -> None:
        super().__init__()
        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]  # one per row
        self._task = task  # named in errors
        self._token: Any = None

    def __enter__(self) -> RowDraws:
        self._token = _rows_drawn.set(self)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _rows_drawn.reset(self._token)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Serve draws; everything else runs as it is."""
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name not in DRAWS or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        if name in IN_PLACE:
            return self._in_place(func, name, *args, **kwargs)
        if name in LIKE:
            like, kwargs = args[0], {k: v for k, v in kwargs.items() if k != "memory_format"}
            kwargs = {"dtype": like.dtype, "device": like.device, **kwargs, "size": like.shape}
            return self._sized(LIKE[name], name, args[1:], kwargs)
        if name in SIZED or not any(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values())):
            return self._sized(func, name, args, kwargs)
        return self._by_value(func, name, args, kwargs)

    def _sized(self, func: Callable, name: str, args: tuple, kwargs: dict) -> torch.Tensor:
        """``rand(*size)``, ``randint([low], high, size)``, ``normal(mean, std, size)``."""
        if "size" in kwargs:
            size = kwargs.pop("size")
        elif name in ("rand", "randn") and not (args and isinstance(args[0], tuple | list)):
            size, args = args, ()
        else:
            *head, size = args
            args = tuple(head)
        shape = (size,) if name == "randperm" else tuple(size)
        self._check(name, shape, never="out" in kwargs or name == "randperm")
        device, one = kwargs.pop("device", None), (1, *shape[1:])
        drawn = [func(*args, size=one, generator=stream, device=stream.device, **kwargs) for stream in self.streams]
        return torch.cat(drawn).to(device)

    def _in_place(self, func: Callable, name: str, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._check(name, tuple(tensor.shape))
        kwargs.pop("generator", None)
        drawn = []
        for stream in self.streams:
            row = torch.empty(1, *tensor.shape[1:], dtype=tensor.dtype, device=stream.device)
            drawn.append(func(row, *args, generator=stream, **kwargs))
        return tensor.copy_(torch.cat(drawn))

    def _by_value(self, func: Callable, name: str, args: tuple, kwargs: dict) -> torch.Tensor:
        """Draws whose parameters are tensors, one row each: ``normal(mean, std)``, ``multinomial(weights, n)``."""
        kwargs.pop("generator", None)
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        for tensor in tensors:
            self._check(name, tuple(tensor.shape), never="out" in kwargs)
        drawn = []
        for k, stream in enumerate(self.streams):
            row = [value[k : k + 1].cpu() if isinstance(value, torch.Tensor) else value for value in args]
            named = {
                key: value[k : k + 1].cpu() if isinstance(value, torch.Tensor) else value
                for key, value in kwargs.items()
            }
            drawn.append(func(*row, generator=stream, **named))
        return torch.cat(drawn).to(tensors[0].device)

    def _check(self, name: str, shape: tuple, never: bool = False) -> None:
        if never or not shape or shape[0] != len(self.streams):
            raise _refused(self._task, f"torch.{name}", shape, len(self.streams))


class RowNumbers:
    """Answers as one numpy RandomState to draws of ``[len(env_idx), ...]``, row k from stream k of ``streams``."""

    def __init__(self, streams: Sequence[Any], task: str) -> None:
        self._streams = list(streams)
        self._task = task  # named in errors

    def __getattr__(self, name: str) -> Callable[..., np.ndarray]:
        def draw(*args: Any, **kwargs: Any) -> np.ndarray:
            if name in NUMPY_DIMENSIONS:
                return getattr(self, NUMPY_DIMENSIONS[name])(size=args)
            at = NUMPY_SIZE_AT.get(name, len(args))
            size = args[at] if len(args) > at else kwargs.pop("size", None)
            shape = () if size is None else tuple(np.atleast_1d(size).tolist())
            if name not in NUMPY_SIZE_AT or not shape or shape[0] != len(self._streams):
                raise _refused(self._task, f"_episode_rng.{name}", shape, len(self._streams))

            def row(value: Any, k: int) -> Any:
                by_row = name != "choice" and np.ndim(value) == len(shape) and np.shape(value)[0] == shape[0]
                return np.asarray(value)[k : k + 1] if by_row else value

            one = (1, *shape[1:])
            behind, named = ((one, *args[at + 1 :]), kwargs) if len(args) > at else ((), {**kwargs, "size": one})
            drawn = [
                getattr(stream, name)(*(row(value, k) for value in args[:at]), *behind, **named)
                for k, stream in enumerate(self._streams)
            ]
            return np.concatenate(drawn)

        return draw


_sample = UniformPlacementSampler.sample


def _sample_by_row(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Upstream's rejection sampler tries until every row has its place; here each row stops at its own."""
    draws = _rows_drawn.get()
    if draws is None or len(draws.streams) != self.batch_size:
        return _sample(self, *args, **kwargs)
    ones, places, streams = [copy.copy(self) for _ in draws.streams], [], draws.streams
    try:
        for k, one in enumerate(ones):
            one.batch_size, draws.streams = 1, [streams[k]]
            if self.fixture_positions is not None:
                one.fixture_positions = self.fixture_positions[:, k : k + 1]
            places.append(_sample(one, *args, **kwargs))
    finally:
        draws.streams = streams
    if ones[0].fixture_positions is not None:
        self.fixture_positions = torch.cat([one.fixture_positions for one in ones], dim=1)
        self.fixtures_radii = ones[0].fixtures_radii
    return torch.cat(places)


# For good, since simulations of several threads draw at once: outside of a RowDraws it is upstream's.
UniformPlacementSampler.sample = _sample_by_row


def _refused(task: str, draw: str, shape: tuple, rows: int) -> EnvSetupError:
    return EnvSetupError(
        f"{task} draws {draw} of shape {shape} where {rows} environments are reset; with GPU physics each draws from "
        "the stream of its seed, so the first axis has to be len(env_idx) (a permutation is the argsort of such a "
        "draw). Use sim.backend=cpu, or mend the task (docs/adding_an_env.md)"
    )
