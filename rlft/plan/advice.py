"""The overrides that make a run fit, each weighed by planning the run with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

from rlft.config.checks import cross_checks
from rlft.config.load import changed
from rlft.config.schema import RunConfig
from rlft.plan.machine import Machine
from rlft.plan.memory import HOST, device_name, on_gpu

Change = dict[str, Any]
SMALLEST_SFT_BATCH = 8


def advise(stage: str, cfg: RunConfig, machine: Machine) -> Change | None:
    """The overrides that make a stage fit.

    Whatever harms most is given up last: with every remedy at its strongest, the most harmful is weakened first, as
    far as the plan still fits, then the next.

    Returns:
        the settings to override; none where it fits as it is; None where nothing that is known here helps.
    """
    if not machine.overfull(machine.plan(stage, cfg)):
        return {}
    none: Change = {}
    remedies = [[none, *remedy(cfg, machine)] for remedy in REMEDIES[stage]]
    chosen = [choices[-1] for choices in remedies]
    if not _fits(stage, cfg, machine, chosen):
        return None
    for i in reversed(range(len(remedies))):
        chosen[i] = next(
            choice for choice in remedies[i] if _fits(stage, cfg, machine, [*chosen[:i], choice, *chosen[i + 1 :]])
        )
    return _merged(chosen)


def prefix_room(cfg: RunConfig, advised: Change, machine: Machine) -> Change | None:
    """The overrides with which a rollout that would keep pictures keeps prefixes instead.

    Args:
        cfg: settings.
        advised: overrides that make it fit with pictures.
        machine: where it is planned.

    Returns:
        overrides in place of ``advised``; None where nothing that is known here helps.
    """
    if cfg.model.train_vlm:
        return None
    none: Change = {}
    types, places = [none, *_half_prefix(cfg, machine)], [none, *_buffer_on_host(cfg, machine)]
    for half, place in product(types, places):
        change = advised | {"buffer.store": "prefix"} | half | place
        if _fits("train_rl", cfg, machine, [change]):
            return change
    return None


def spell(change: Change) -> str:
    """Overrides as they are typed."""
    return " ".join(f"{key}={str(x).lower() if isinstance(x, bool) else x}" for key, x in change.items())


def _fits(stage: str, cfg: RunConfig, machine: Machine, changes: list[Change]) -> bool:
    trial = changed(cfg, _merged(changes))
    return not cross_checks(trial) and not machine.overfull(machine.plan(stage, trial))


def _micro_batch(cfg: RunConfig, machine: Machine) -> Iterator[Change]:
    yield from _halved("train.micro_batch_size", cfg.train.micro_batch_size or cfg.train.batch_size, 1)


def _checkpointing(cfg: RunConfig, machine: Machine) -> Iterator[Change]:
    if not cfg.model.gradient_checkpointing:
        yield {"model.gradient_checkpointing": True}


def _buffer_on_host(cfg: RunConfig, machine: Machine) -> Iterator[Change]:
    if device_name(cfg.buffer.device) != HOST:
        yield {"buffer.device": HOST}


def _half_prefix(cfg: RunConfig, machine: Machine) -> Iterator[Change]:
    if machine.plan("train_rl", cfg).network.dtype == "float32" and cfg.buffer.prefix_dtype != "bfloat16":
        yield {"buffer.prefix_dtype": "bfloat16"}


def _pictures(cfg: RunConfig, machine: Machine) -> Iterator[Change]:
    if cfg.buffer.store != "images":
        yield {"buffer.store": "images"}


def _workers(cfg: RunConfig, machine: Machine) -> Iterator[Change]:
    present = machine.assumed.cores if cfg.sim.num_workers is None else cfg.sim.num_workers
    if not on_gpu(cfg):
        yield from _halved("sim.num_workers", present, 1)


def _evaluation(cfg: RunConfig, machine: Machine) -> Iterator[Change]:
    for change in _halved("eval.num_envs", cfg.eval.num_envs, 1):
        if cfg.eval.episodes % change["eval.num_envs"] == 0:
            yield change


def _environments(cfg: RunConfig, machine: Machine) -> Iterator[Change]:
    for change in _halved("env.num_envs", cfg.env.num_envs, 1):
        rows = cfg.env.n_steps_rollout // cfg.act_steps * change["env.num_envs"]
        yield change | ({"train.batch_size": rows} if rows < cfg.train.batch_size else {})


def _half_weights(cfg: RunConfig, machine: Machine) -> Iterator[Change]:
    if cfg.model.dtype == "float32":
        yield {"model.dtype": "bfloat16"}


def _frozen(cfg: RunConfig, machine: Machine) -> Iterator[Change]:
    if cfg.model.train_vlm:
        yield {"model.train_vlm": False}


def _no_cache(cfg: RunConfig, machine: Machine) -> Iterator[Change]:
    if cfg.sft.cache_prefix is True:
        yield {"sft.cache_prefix": False}


def _sft_batch(cfg: RunConfig, machine: Machine) -> Iterator[Change]:
    yield from _halved("sft.batch_size", cfg.sft.batch_size, SMALLEST_SFT_BATCH)


def _expert_only(cfg: RunConfig, machine: Machine) -> Iterator[Change]:
    if not cfg.sft.train_expert_only:
        yield {"sft.train_expert_only": True}


# By what they cost: nothing, time, exactness, the experiment itself.
REMEDIES: dict[str, list[Callable[[RunConfig, Machine], Iterator[Change]]]] = {
    "train_rl": [
        _micro_batch,
        _buffer_on_host,
        _checkpointing,
        _workers,
        _evaluation,
        _half_prefix,
        _pictures,
        _half_weights,
        _environments,
        _frozen,
    ],
    "train_sft": [_checkpointing, _no_cache, _half_weights, _sft_batch, _expert_only],
}


def _halved(key: str, present: int, least: int) -> Iterator[Change]:
    """Smaller powers of two, largest first."""
    value = 1 << max(0, present - 1).bit_length()
    while (value := value // 2) >= least:
        if value < present:
            yield {key: value}


def _merged(changes: Iterable[Change]) -> Change:
    return {key: value for change in changes for key, value in change.items()}
