"""Bytes on every device while a stage runs."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field, replace

from rlft.config.learning import BufferConfig
from rlft.config.schema import RunConfig
from rlft.plan.activations import denoise_bytes, encode_bytes, saved_by_expert, saved_by_heads, saved_by_prefix
from rlft.plan.flops import RunFlops, run_flops, update_steps
from rlft.plan.network import NetworkSize, network_of
from rlft.plan.parameters import Count, count_parameters, critic_head, noise_head
from rlft.plan.rollout import (
    chain_bytes,
    decision_bytes,
    image_row_bytes,
    part_bytes,
    pinned_blocks,
    prefix_row_bytes,
    prefix_type,
    rollout_bytes,
)

HOST = BufferConfig().device  # the schema's default; written out there and nowhere else
COMPONENTS = ("weights", "gradients", "optimizer", "activations", "buffer", "staging", "simulation", "libraries")
MB = 10**6

# Measured on a two-core machine without a GPU.
LEARNER = 1000 * MB  # Python, torch and lerobot
SIMULATOR = {
    "maniskill": 1050 * MB,
    "toy": 40 * MB,
    "gymnasium": 330 * MB,
    "lerobot": 1100 * MB,
}  # a process with its first environment
STATE_ONLY = 740 * MB  # ManiSkill without a renderer
NEXT_ENV = {
    "maniskill": 4 * MB,
    "toy": 1 * MB,
    "gymnasium": 15 * MB,
    "lerobot": 15 * MB,
}  # each further environment of a process
CUDA_CONTEXT = 600 * MB  # an estimate: driver, kernels, workspaces


@dataclass(frozen=True)
class Assumed:
    """What the settings do not say.

    Attributes:
        privileged_dim: P; only the simulator knows.
        tokens: L, language tokens; None: see :func:`rlft.plan.network.network_of`.
        frames: frames of the dataset; None: every demonstration as long as an episode may be.
        cores: cores of the machine that trains.
        sim_bytes: what simulation on a GPU takes there; None: not known.
    """

    privileged_dim: int = 70
    tokens: int | None = None
    frames: int | None = None
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    sim_bytes: int | None = None


@dataclass(frozen=True)
class Plan:
    """One stage.

    Attributes:
        stage: ``train_rl`` or ``train_sft``.
        network: the sizes that everything follows from.
        flops: what it computes.
        store: what is kept of an observation: ``prefix`` or ``images``.
        used: device -> component -> bytes.
        roles: device -> what is done there.
        peak: when the activations are most: ``rollout``, ``update`` or ``step`` (of the warm-up).
        unknown: devices on which something could not be counted.
        kept_prefixes: bytes of the warm-up's prefixes, where it keeps them; part of the model device's buffer.
    """

    stage: str
    network: NetworkSize
    flops: RunFlops
    store: str
    used: dict[str, dict[str, int]]
    roles: dict[str, tuple[str, ...]]
    peak: str
    unknown: tuple[str, ...] = ()
    kept_prefixes: int = 0

    def total(self, device: str) -> int:
        """Bytes on a device."""
        return sum(self.used[device].values())


def device_name(name: str) -> str:
    """The same name for the same device: a CUDA device without a number is the first."""
    return name if name == HOST or ":" in name else f"{name}:0"


def plan_rl(cfg: RunConfig, assumed: Assumed, store: str) -> Plan:
    """PPO.

    Args:
        cfg: settings.
        assumed: what they do not say.
        store: ``prefix`` or ``images``: what ``auto`` comes to.
    """
    size = network_of(cfg, tokens=assumed.tokens)
    privileged = assumed.privileged_dim if cfg.critic.inputs != "features" else 0
    sim, model, buffer = (device_name(x) for x in (cfg.sim.device, cfg.model.device, cfg.buffer.device))
    used: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(COMPONENTS, 0))
    for device in (HOST, sim, model, buffer):
        used[device]["libraries"] = LEARNER if device == HOST else CUDA_CONTEXT
    network = count_parameters(size)
    heads = Count(full=critic_head(cfg, size, privileged)), Count(full=noise_head(size))
    trained = network.expert + heads[0]
    if cfg.model.train_vlm:
        trained += network.prefix
    if cfg.exploration.method == "flow_noise" and cfg.exploration.learn_std:
        trained += heads[1]
    _learn(used[model], network.all + heads[0] + heads[1], trained, size.dtype)
    phases = {
        "rollout": _rollout_phase(cfg, size, assumed, privileged),
        "update": _update_phase(cfg, size, store, privileged, gpu=model != HOST),
    }
    peak = max(phases, key=lambda name: phases[name])
    used[model]["activations"] = phases[peak]
    used[buffer]["buffer"] = rollout_bytes(cfg, store=store, privileged_dim=privileged, tokens=assumed.tokens)
    _stage(used, cfg, size, assumed, part_bytes(cfg, size, store=store, privileged_dim=privileged))
    unknown = _simulate(cfg, assumed, used)
    return Plan(
        stage="train_rl",
        network=size,
        flops=run_flops(cfg, size, store=store, cached=True),
        store=store,
        used=dict(used),
        roles=_roles({"simulator": sim, "model": model, "buffer": buffer}, used),
        peak=peak,
        unknown=unknown,
    )


def plan_sft(cfg: RunConfig, assumed: Assumed, *, cached: bool) -> Plan:
    """The supervised warm-up.

    Args:
        cfg: settings.
        assumed: what they do not say.
        cached: whether the frames' prefixes are kept.
    """
    size, rows = network_of(cfg, tokens=assumed.tokens, checkpoint=False), cfg.sft.batch_size
    model, frames = device_name(cfg.model.device), frame_count(cfg, assumed)
    used: dict[str, dict[str, int]] = {x: dict.fromkeys(COMPONENTS, 0) for x in (HOST, model)}
    for device in used:
        used[device]["libraries"] = LEARNER if device == HOST else CUDA_CONTEXT
    network = count_parameters(size)
    trained = network.expert if cfg.sft.train_expert_only else network.expert + network.prefix
    _learn(used[model], network.all, trained, size.dtype)
    saved = saved_by_expert(size, rows, 1)
    if not cfg.sft.train_expert_only:
        saved += saved_by_prefix(size, rows)
    kept = rows * prefix_row_bytes(size, size.dtype)
    step = kept + saved.nbytes(checkpointing=cfg.model.gradient_checkpointing)
    if cfg.sft.train_expert_only and not cached:
        step = max(step, encode_bytes(size, rows))
    used[model]["activations"] = step
    prefixes = frames * prefix_row_bytes(size, size.dtype) if cached else 0
    used[model]["buffer"] += prefixes
    used[HOST]["buffer"] += frames * sum(_pixels(cfg, camera.height, camera.width) for camera in cfg.env.cameras)
    return Plan(
        stage="train_sft",
        network=size,
        flops=run_flops(cfg, size, store="prefix", cached=cached),
        store="prefix" if cached else "images",
        used=used,
        roles=_roles({"model": model}, used),
        peak="step",
        kept_prefixes=prefixes,
    )


def frame_count(cfg: RunConfig, assumed: Assumed) -> int:
    """Frames of the demonstrations."""
    return assumed.frames or cfg.collect.num_episodes * cfg.env.max_episode_len


def _learn(used: dict[str, int], held: Count, trained: Count, dtype: str) -> None:
    used["weights"] = held.nbytes(dtype)
    used["gradients"], used["optimizer"] = trained.gradient_bytes(dtype), trained.optimizer_bytes(dtype)


def _pixels(cfg: RunConfig, height: int | None, width: int | None) -> int:
    side = network_of(cfg, checkpoint=False).vision.side
    return 3 * (height or side) * (width or side)


def _update_phase(cfg: RunConfig, size: NetworkSize, store: str, privileged: int, *, gpu: bool) -> int:
    """The part of a minibatch that passes at once, and what its passes hold."""
    rows, steps = cfg.train.micro_batch_size or cfg.train.batch_size, update_steps(cfg)
    kept = prefix_row_bytes(size, prefix_type(cfg, size)) if store == "prefix" else image_row_bytes(size)
    part = rows * (kept + decision_bytes(cfg, size, privileged))
    saved = saved_by_expert(size, rows, steps)
    if cfg.model.train_vlm:
        saved += saved_by_prefix(size, rows)
    # The heads are few: they are not computed again.
    saved = replace(saved, rest=saved.rest + saved_by_heads(cfg, size, rows, steps, privileged))
    passes = saved.nbytes(checkpointing=cfg.model.gradient_checkpointing)
    if store == "images":
        passes += rows * size.kv_row_bytes(size.dtype)
    if store == "images" and not cfg.model.train_vlm:
        passes = max(passes, encode_bytes(size, rows))
    return part * (2 if gpu else 1) + passes  # on a GPU the next part arrives while this one is used


def _rollout_phase(cfg: RunConfig, size: NetworkSize, assumed: Assumed, privileged: int) -> int:
    """A decision, or the values of final observations, while the decisions before wait for their outcomes."""
    image, kept = image_row_bytes(size), prefix_row_bytes(size, prefix_type(cfg, size))

    def deciding(rows: int) -> int:
        drawn = rows * (image + 2 * decision_bytes(cfg, size, 0))
        return drawn + max(encode_bytes(size, rows), denoise_bytes(size, rows) + rows * kept)

    waiting = cfg.env.num_envs * (image + kept + decision_bytes(cfg, size, privileged))
    return max(deciding(_group_rows(cfg, assumed)) + waiting, deciding(cfg.eval.num_envs))


def _group_rows(cfg: RunConfig, assumed: Assumed) -> int:
    return -(-cfg.env.num_envs // group_count(cfg, assumed))


def _stage(
    used: dict[str, dict[str, int]], cfg: RunConfig, size: NetworkSize, assumed: Assumed, row_bytes: list[int]
) -> None:
    """Add what waits to be copied: parts of minibatches for another device, and what a decision sends from the host.

    torch keeps the pinned blocks that it has used; the next part is gathered before the copy of the last one is done.
    """
    model, buffer = device_name(cfg.model.device), device_name(cfg.buffer.device)
    if model == HOST:
        return
    part = [(cfg.train.micro_batch_size or cfg.train.batch_size) * size_of_row for size_of_row in row_bytes]
    if buffer == HOST:
        used[HOST]["staging"] += 2 * pinned_blocks(part)
    elif buffer != model:
        used[buffer]["staging"] += sum(part)
    rows = max(_group_rows(cfg, assumed), cfg.eval.num_envs)
    sent = [chain_bytes(cfg, size)] if on_gpu(cfg) else [chain_bytes(cfg, size), image_row_bytes(size)]
    used[HOST]["staging"] += pinned_blocks(rows * size_of_row for size_of_row in sent)


def group_count(cfg: RunConfig, assumed: Assumed) -> int:
    """Groups that the rollout's environments are decided in."""
    overlap = cfg.sim.overlap
    if overlap is None:
        overlap = device_name(cfg.sim.device) != device_name(cfg.model.device) or _workers(cfg, assumed) > 1
    return cfg.sim.num_groups or (2 if overlap and cfg.env.num_envs > 1 else 1)


def on_gpu(cfg: RunConfig) -> bool:
    """Whether physics runs on a GPU."""
    return cfg.sim.backend == "gpu" or (cfg.sim.backend == "auto" and device_name(cfg.sim.device) != HOST)


def _workers(cfg: RunConfig, assumed: Assumed) -> int:
    return assumed.cores if cfg.sim.num_workers is None else cfg.sim.num_workers


def _simulate(cfg: RunConfig, assumed: Assumed, used: dict[str, dict[str, int]]) -> tuple[str, ...]:
    """Add the simulation; the devices on which it could not be counted."""
    simulator, sim = cfg.env.simulator, device_name(cfg.sim.device)
    if on_gpu(cfg) and simulator == "maniskill":
        used[sim]["simulation"] += assumed.sim_bytes or 0
        return () if assumed.sim_bytes is not None else (sim,)
    workers = _workers(cfg, assumed)
    processes = min(workers, cfg.env.num_envs) + min(workers, cfg.eval.num_envs) if workers else 1
    first = STATE_ONLY if simulator == "maniskill" and not cfg.env.cameras else SIMULATOR[simulator]
    further = max(0, cfg.env.num_envs + cfg.eval.num_envs - processes)
    used[HOST]["simulation"] += processes * first + further * NEXT_ENV[simulator]
    return ()


def _roles(parts: dict[str, str], used: dict[str, dict[str, int]]) -> dict[str, tuple[str, ...]]:
    return {device: tuple(part for part, where in parts.items() if where == device) for device in used}
