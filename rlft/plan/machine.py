"""What a machine has, the plan of a stage on it, and the overrides that make the stage fit."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlft import plugins
from rlft.config.checks import cross_checks, policy_family
from rlft.config.load import changed
from rlft.config.schema import RunConfig
from rlft.placement import SHARE, free_bytes, worker_count
from rlft.plan.memory import HOST, Assumptions, MemoryPlan, device_name, plan_rl, plan_sft

GIB = 2**30
RESERVE = 0.05  # of a device, for what an allocator cannot use
Change = dict[str, Any]
# Setting -> its strongest value, by what it costs: nothing, time, exactness, the experiment itself.
REMEDIES: dict[str, Change] = {
    "train_rl": {
        "train.micro_batch_size": 1,
        "buffer.device": HOST,
        "model.gradient_checkpointing": True,
        "sim.num_workers": 1,
        "eval.num_envs": 1,
        "buffer.prefix_dtype": "bfloat16",
        "buffer.store": "images",
        "model.dtype": "bfloat16",
        "env.num_envs": 1,
        "model.train_vlm": False,
    },
    "train_sft": {
        "model.gradient_checkpointing": True,
        "sft.cache_prefix": False,
        "model.dtype": "bfloat16",
        "sft.batch_size": 8,
        "sft.train_expert_only": True,
    },
}


@dataclass(frozen=True)
class Machine:
    """Where a run is planned: device -> bytes that it has (None: not known), and what the settings leave out."""

    capacity: Mapping[str, int | None]
    assumed: Assumptions

    def plan(self, stage: str, cfg: RunConfig) -> MemoryPlan:
        """Plan ``train_rl`` or ``train_sft``, deciding as it would what its settings leave open."""
        make, wanted = (plan_rl, _rl_store(cfg)) if stage == "train_rl" else (plan_sft, _sft_store(cfg))
        plan = make(cfg, self.assumed, wanted or "prefix")
        room = self.capacity[plan.kept_on]
        there = sum(plan.used[plan.kept_on][name] for name in ("weights", "simulation", "libraries"))
        fits = wanted or room is None or plan.kept <= SHARE * (room - there)
        return plan if fits else make(cfg, self.assumed, "images")

    def fits(self, plan: MemoryPlan, device: str) -> bool | None:
        """Whether a device holds its part; None where nobody knows what it has."""
        room = self.capacity[device]
        return None if room is None else plan.total(device) <= (1.0 - RESERVE) * room

    def overfull(self, plan: MemoryPlan) -> list[str]:
        """The devices that do not hold their part."""
        return [device for device in plan.used if self.fits(plan, device) is False]


def _rl_store(cfg: RunConfig) -> str | None:
    """What is kept of the observations; None: prefixes where they leave room."""
    auto = "images" if cfg.model.train_vlm else None
    return auto if cfg.buffer.store == "auto" else cfg.buffer.store


def _sft_store(cfg: RunConfig) -> str | None:
    changing = cfg.domain_randomization is not None and cfg.domain_randomization.sft
    if changing or not cfg.sft.train_expert_only or cfg.sft.cache_prefix is False:
        return "images"
    return "prefix" if cfg.sft.cache_prefix else None


def measure(cfg: RunConfig, *, gpu_gib: float | None, host_gib: float | None) -> dict[str, int | None]:
    """Bytes of every device of these settings: as said, GiB, or else (None) what is free now, where it is here."""
    capacity: dict[str, int | None] = {}
    for name in {HOST, *map(device_name, (cfg.sim.device, cfg.model.device, cfg.buffer.device))}:
        said, device = host_gib if name == HOST else gpu_gib, torch.device(name)
        here = name == HOST or device.index < torch.cuda.device_count()
        capacity[name] = int(said * GIB) if said is not None else free_bytes(device) if here else None
    return capacity


def advise(stage: str, cfg: RunConfig, machine: Machine) -> Change | None:
    """The overrides that make a stage fit.

    Of the remedies, at their strongest, as many are taken as it needs, the least harmful first. Then each is weakened
    as far as the plan still fits, the most harmful first. Empty where it fits as it is; None where nothing helps.
    """

    def fits(changes: list[Change]) -> bool:
        trial = changed(cfg, _merged(cfg, changes))
        return not cross_checks(trial) and not machine.overfull(machine.plan(stage, trial))

    choices = [_choices(cfg, key, value, machine.assumed.cores) for key, value in REMEDIES[stage].items()]
    chosen: list[Change] = []
    while machine.overfull(machine.plan(stage, cfg)) and not fits(chosen):
        if len(chosen) == len(choices):
            return None
        chosen.append(choices[len(chosen)][-1])
    for i in reversed(range(len(chosen))):  # a stronger choice takes no more than a weaker one

        def enough(choice: Change, others: Sequence[Change] = (*chosen[:i], *chosen[i + 1 :])) -> bool:
            return fits([*others, choice])

        chosen[i] = choices[i][bisect_left(choices[i], True, key=enough)]
    return _merged(cfg, chosen)


def _choices(cfg: RunConfig, key: str, strongest: Any, cores: int | None) -> list[Change]:
    """A setting as it is, and what it can be instead, up to its strongest: a number is halved."""
    section, name = key.split(".")
    present, choices = vars(vars(cfg)[section])[name], list[Change]()
    if isinstance(strongest, bool) or not isinstance(strongest, int):
        choices = [] if present in (strongest, None) else [{key: strongest}]
    else:
        number = worker_count(cfg, cores) if name == "num_workers" else present or cfg.train.batch_size
        while number > strongest:
            number = max(number // 2, strongest)
            choices.append({key: number})
    return [{}, *(choice for choice in choices if _possible(changed(cfg, _merged(cfg, [choice]))))]


def _possible(cfg: RunConfig) -> bool:
    """Whether policy, objective and evaluation could follow these settings."""
    objective = plugins.load("objectives", cfg.train.objective, "train.objective")
    return cfg.eval.episodes % cfg.eval.num_envs == 0 and not [*policy_family(cfg), *objective.problems(cfg)]


def _merged(cfg: RunConfig, changes: Iterable[Change]) -> Change:
    """All of them, and no minibatch larger than the rollout."""
    merged = {key: value for change in changes for key, value in change.items()}
    rows = cfg.env.n_steps_rollout // cfg.act_steps * merged.get("env.num_envs", cfg.env.num_envs)
    return merged | ({"train.batch_size": rows} if rows < cfg.train.batch_size else {})


def format_overrides(change: Change) -> str:
    """Overrides as they are typed."""
    return " ".join(f"{key}={str(x).lower() if isinstance(x, bool) else x}" for key, x in change.items())
