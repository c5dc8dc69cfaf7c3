"""The contract of an objective: all that is the algorithm's. Sampler, rollout, updater and runner know none.

An iteration, and where it asks an objective::

    for every decision      draws, sample -> a chunk to execute, and a trace that is stored as it is
    for what is cut off     final_values, where the objective bootstraps
    the rollout is whole    calibrate; signal -> columns beside the trace, and what is left out
    before the epochs       begin_update
    for every micro-batch   loss -> a scalar to differentiate, and scalars for the log
    before every step       examine -> whether to stop here

One of your own: subclass :class:`Objective` (or :class:`rlft.objective.surrogate.ClippedSurrogate`, which leaves
:meth:`signal`) in a module of yours, and set ``train.objective=package.module:Name``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rlft import plugins
from rlft.config.learning import OptimizerConfig
from rlft.config.schema import RunConfig
from rlft.policy.actor import Actor
from rlft.policy.base import FlowPolicy, Prefix
from rlft.policy.denoise import make_schedule
from rlft.policy.heads import NoiseHead
from rlft.rollout.buffer import MicroBatch, Rollout
from rlft.rows import TensorRows
from rlft.seeding import seed_for


@dataclass(frozen=True)
class Sampled:
    """What an objective decided for n observations."""

    chunk: Tensor  # float32 `[n, H, D]`, model units; its first A steps are executed
    trace: TensorRows  # n rows, what the update needs to know of the decision; opaque to everybody else
    noise_std: Tensor  # float32 scalar, mean std of the exploration (for the log)


@dataclass(frozen=True)
class Signal:
    """What a finished rollout says of its decisions."""

    rows: TensorRows  # columns `[T, E, ...]` for the loss
    # bool `[T, E]`, decisions that no minibatch may hold, beside the invalid ones; None: no others
    dropped: Tensor | None = None
    scalars: Mapping[str, float] = field(default_factory=dict)  # for the log, under their whole names


class Objective(nn.Module, ABC):
    """What is optimised; a module of the actor and of what else it trains.

    To learn what is stored and what it costs, a run's start and planning call :meth:`sample`, :meth:`final_values` and
    :meth:`loss` on blank rows, on the meta device too, where tensors have shapes and no values: no branch of theirs may
    ask what a tensor holds. :meth:`signal` is then given a rollout of zeros, in which every episode ends at once.

    ``privileged_dim`` is P of the simulator state that observations bring, or 0.
    """

    Options: type | None = None  # a dataclass of its own settings, which `train.options` gives; None: it has none
    group_size: int = 1  # G, how many environments (side by side) start each of their episodes from the same seed
    bootstraps: bool = False  # whether values of observations that nothing is decided on are stored (`final_values`)
    # what `loss` reports, for the log; NaN where an iteration applies no update. Means over a minibatch and over the
    # applied minibatches; names that begin with `max_` are maxima
    scalars: tuple[str, ...] = ()

    def __init__(self, actor: Actor, cfg: RunConfig, privileged_dim: int = 0) -> None:
        super().__init__()
        self.actor, self.cfg, self.privileged_dim = actor, cfg, privileged_dim

    @classmethod
    def problems(cls, cfg: RunConfig) -> list[str]:
        """What it cannot do of these settings, or would ignore; asked before anything is loaded."""
        return []

    def heads(self) -> dict[str, nn.Module]:
        """What a checkpoint keeps beside the policy, by name."""
        return {"noise": self.actor.noise}

    def parameter_groups(self) -> dict[str, tuple[Sequence[nn.Parameter], OptimizerConfig]]:
        """What trains, by name, each with an optimiser of its own."""
        return {"actor": (self.actor.parameters_that_train(), self.cfg.train.actor_optimizer)}

    def trains(self, iteration: int) -> set[str]:
        """The groups whose parameters move in an iteration."""
        return set(self.parameter_groups())

    def draws(self, generators: Sequence[torch.Generator]) -> TensorRows:
        """The random numbers of one decision per generator, on the host."""
        return self.actor.draws(generators)

    @abstractmethod
    def sample(self, prefix: Prefix, draws: Any, privileged: Tensor | None) -> Sampled:
        """Decide, without gradients, by what :meth:`draws` gave; ``privileged`` is float32 ``[n, P]`` or None."""

    def final_values(self, privileged: Tensor | None, look: Callable[[], tuple[Prefix, Any]]) -> Tensor:
        """Values ``[n]`` of observations that nothing is decided on; ``look`` encodes them, and draws, where asked."""
        raise TypeError(f"{type(self).__name__} bootstraps, and gives no final_values")

    def calibrate(self, rollout: Rollout) -> bool:
        """Learn from a rollout what has to be known before the first; True: collect it again, its traces are stale."""
        return False

    @abstractmethod
    def signal(self, rollout: Rollout) -> Signal:
        """Judge every decision of a complete rollout, where the rollout is kept."""

    def begin_update(self, rollout: Rollout) -> dict[str, float]:
        """Prepare the epochs; gives what :meth:`examine` keeps and the log shows."""
        return {}

    @abstractmethod
    def loss(self, batch: MicroBatch, iteration: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The mean loss of some rows, and its :attr:`scalars`, left on their device. Reads and sends nothing."""

    def examine(self, iteration: int, scalars: Mapping[str, float], notes: dict[str, float]) -> bool:
        """Look at a minibatch's scalars, ``total`` included, before its step; True ends the iteration's updates here.

        ``notes`` are what :meth:`begin_update` gave, to be kept up to date.
        """
        return False

    def prefix_of(self, batch: MicroBatch) -> Prefix:
        """The stored prefix, or a fresh one from the stored model inputs."""
        return batch.prefix if batch.prefix is not None else self.actor.policy.encode(batch.inputs)


def build_objective(cfg: RunConfig, policy: FlowPolicy, privileged_dim: int) -> Objective:
    """The objective of the settings, with the policy and its exploration noise.

    Heads go where the policy's weights are, which may be the meta device; the seed names their first weights.
    ``privileged_dim`` is P of the simulator state that observations bring, or 0.
    """
    x, frozen = cfg.exploration, set(policy.stats.frozen_action_dims)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(cfg.seed, "heads"))
        actor = Actor(
            policy,
            NoiseHead(policy.feature_dim, policy.action_width, x.std_min, x.std_max, learned=x.learn_std),
            make_schedule(x.method, cfg.num_steps, x.noise_level).to(policy.device),
            cfg.act_steps,
            explored_dims=[dim for i, dim in enumerate(policy.real_dims) if i not in frozen],
            frozen_dims=[policy.real_dims[i] for i in sorted(frozen)],
            density=x.density,
        )
        objective: type[Objective] = plugins.load("objectives", cfg.train.objective, "train.objective")
        return objective(actor, cfg, privileged_dim).to(policy.device)
