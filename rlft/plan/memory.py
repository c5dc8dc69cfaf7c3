"""Bytes on every device while a stage runs, and its FLOPs."""

from dataclasses import dataclass

from rlft import placement, plugins
from rlft.config.schema import RunConfig
from rlft.placement import group_count, parse_device, physics_backend, worker_count
from rlft.plan.network import Network, decisions, network_of, pinned_blocks

HOST = str(placement.HOST)
COMPONENTS = ("weights", "gradients", "optimizer", "activations", "buffer", "staging", "simulation", "libraries")
MB = 10**6
LEARNER = 1000 * MB  # Python, torch and lerobot, measured on a two-core machine without a GPU
CUDA_CONTEXT = 600 * MB  # an estimate: driver, kernels, workspaces

Used = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Assumptions:
    """What the settings do not say."""

    privileged_dim: int = 70  # P; only the simulator knows
    tokens: int | None = None  # L, the padded length of the prompts; None: the checkpoint's, or an estimate
    frames: int | None = None  # of the dataset; None: every demonstration as long as an episode may be
    cores: int | None = None  # of the machine that trains; None: this process's
    sim_bytes: int | None = None  # of a simulation that was never measured; None: it is not counted


@dataclass(frozen=True)
class MemoryPlan:
    """One stage, at the moment when its model's device holds most."""

    stage: str  # train_rl or train_sft
    network: Network  # what was measured
    store: str  # what is kept of an observation: prefix or images
    used: Used  # device -> component -> bytes
    roles: dict[str, tuple[str, ...]]  # device -> what is done there
    peak: str  # that moment: rollout, update, or step of supervised training
    flops: dict[str, float]  # what -> operations
    kept_on: str  # where the observations are kept
    kept: int  # bytes of them there; of supervised training only prefixes are
    speedup: float | None = None  # how much less an update computes with stored prefixes; None where the VLM trains
    unknown: tuple[str, ...] = ()  # devices on which something could not be counted

    def total(self, device: str) -> int:
        """Bytes on a device."""
        return sum(self.used[device].values())


def device_name(name: str) -> str:
    """The same name for the same device: a CUDA device without a number is the first."""
    return str(parse_device(name))


def simulator_bytes(cfg: RunConfig, cores: int | None) -> int | None:
    """Host memory of all processes of CPU physics; None where nobody measured it, and on a GPU."""
    found = plugins.load("simulators", cfg.env.simulator, "env.simulator")
    measured = (found() if isinstance(found, type) else found).process_bytes(renders=bool(cfg.env.cameras))
    if physics_backend(cfg) == "gpu" or measured is None:
        return None
    (first, further), sizes = measured, (cfg.env.num_envs, cfg.eval.num_envs)
    processes = sum(min(worker_count(cfg, cores), size) for size in sizes) or 1
    return processes * first + (sum(sizes) - processes) * further


def plan_rl(cfg: RunConfig, assumed: Assumptions, store: str) -> MemoryPlan:
    """Reinforcement learning; ``store``: what the rollout keeps of an observation, ``prefix`` or ``images``."""
    privileged = assumed.privileged_dim if cfg.critic.inputs != "features" else 0
    net = network_of("train_rl", cfg, assumed.tokens, privileged)
    used, roles = _devices({"simulator": cfg.sim.device, "model": cfg.model.device, "buffer": cfg.buffer.device})
    model, buffer = device_name(cfg.model.device), device_name(cfg.buffer.device)
    micro, gpu = cfg.train.micro_batch_size or cfg.train.batch_size, physics_backend(cfg) == "gpu"
    part = [micro * size for size in net.gathered[store]]
    update = net.train(micro, store, more=micro < cfg.train.batch_size)
    group = -(-cfg.env.num_envs // group_count(cfg, assumed.cores))
    rollout = max(group, cfg.eval.num_envs) * net.decide.peak  # a decision is stored before the next one is made
    # On a GPU the next part of a minibatch arrives while this one is used.
    peak = _hold(used[model], net, update=update.peak + sum(part) * (model != HOST), rollout=rollout)
    used[buffer]["buffer"] = kept = decisions(cfg) * net.decision_bytes[store]
    if model != HOST:  # torch keeps pinned blocks, and gathers a part before the last one is copied
        sent = net.draws if gpu else [*net.draws, sum(net.kept["images"])]  # CPU physics' images as well
        used[HOST]["staging"] += pinned_blocks(max(group, cfg.eval.num_envs) * size for size in sent)
        used[HOST]["staging"] += 2 * pinned_blocks(part) * (buffer == HOST)
        used[buffer]["staging"] += sum(part) * (buffer not in (HOST, model))
    simulating = simulator_bytes(cfg, assumed.cores)
    place, unknown = device_name(cfg.sim.device) if gpu else HOST, simulating is None and assumed.sim_bytes is None
    used[place]["simulation"] += (assumed.sim_bytes or 0) if simulating is None else simulating
    flops = _rl_flops(cfg, net, update.flops / micro)
    stored = update.flops / micro - (store == "images") * net.encode.flops
    speedup = None if cfg.model.train_vlm else 1.0 + net.encode.flops / stored
    return MemoryPlan("train_rl", net, store, used, roles, peak, flops, buffer, kept, speedup, (place,) * unknown)


def plan_sft(cfg: RunConfig, assumed: Assumptions, store: str) -> MemoryPlan:
    """Supervised training; ``store``: what a step begins with, kept ``prefix`` or ``images``."""
    net, model = network_of("train_sft", cfg, assumed.tokens), device_name(cfg.model.device)
    (used, roles), rows, frames = _devices({"model": model}), cfg.sft.batch_size, frame_count(cfg, assumed)
    step, side = net.train(rows, store), net.policy.image_size
    arriving = rows * sum(net.kept["images"]) * (model != HOST and store == "images")
    peak = _hold(used[model], net, step=step.peak + arriving)
    used[model]["buffer"] = kept = frames * sum(net.kept["prefix"]) * (store == "prefix")
    used[HOST]["buffer"] += frames * sum(3 * (c.height or side) * (c.width or side) for c in cfg.env.cameras)
    flops = {"one step": float(step.flops), f"all {cfg.sft.steps} steps": float(cfg.sft.steps * step.flops)}
    flops |= {"one frame's prefix, once": float(net.encode.flops)} if kept else {}
    return MemoryPlan("train_sft", net, store, used, roles, peak, flops, model, kept)


def frame_count(cfg: RunConfig, assumed: Assumptions) -> int:
    """Frames of the demonstrations."""
    return assumed.frames or cfg.collect.num_episodes * cfg.env.max_episode_len


def _devices(places: dict[str, str]) -> tuple[Used, dict[str, tuple[str, ...]]]:
    """Every device with its libraries, and what is done there; the host first."""
    names = dict.fromkeys([HOST, *map(device_name, places.values())])
    used = {x: dict.fromkeys(COMPONENTS, 0) | {"libraries": LEARNER if x == HOST else CUDA_CONTEXT} for x in names}
    return used, {x: tuple(part for part, where in places.items() if device_name(where) == x) for x in names}


def _hold(used: dict[str, int], net: Network, rollout: int = 0, **learning: int) -> str:
    """Add the network, its optimiser, and the phase that holds most; its name. A rollout has no gradients."""
    phases = {**learning, "rollout": rollout}
    peak = max(phases, key=lambda name: phases[name])
    gradients = min(net.gradient_bytes, phases[peak]) * (peak != "rollout")
    used |= {"weights": net.weight_bytes, "optimizer": net.optimizer_bytes}
    used |= {"gradients": gradients, "activations": phases[peak] - gradients}
    return peak


def _rl_flops(cfg: RunConfig, net: Network, update: float) -> dict[str, float]:
    # Valued beside the decisions: what stands at the rollout's end, and at most one observation per time limit.
    finals = cfg.env.num_envs * (1 + (cfg.env.n_steps_rollout - 1) // cfg.env.max_episode_len)
    return {
        "prefix of one observation": net.encode.flops,
        "one denoise step": net.denoise.flops,
        "prefix : denoise step": net.encode.flops / net.denoise.flops,
        "update, one decision": update,
        "an iteration's rollout": decisions(cfg) * net.decide.flops + finals * net.final_value.flops,
        "an iteration's updates": decisions(cfg) * cfg.train.update_epochs * update,
    }
