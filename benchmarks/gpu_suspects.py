"""The GPU benchmark's rows about what reading the code as a GPU made suspect: each counts one thing on the device.

Two rollouts alive at once, waits for the device inside a decision, a stream per epoch, pinned memory rounded up, and
strict float32 products.
"""

import gc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import gpu_model as parts
from benchmarks.gpu_env import ACT_STEPS, Scale, StillEnv
from benchmarks.gpu_model import DENOISE_STEPS, Models
from benchmarks.gpu_rows import Check, Found, claim, ratio, size
from rlft.placement import free_bytes, parse_device, synchronize

ITERATIONS = 3
ITERATION_CASES = tuple(f"iteration {i} over the first" for i in range(2, ITERATIONS + 1))


def checks(scale: Scale, cameras: int) -> list[Check]:
    """The suspicions, in the order of what they could cost."""
    short = scale.horizons[-1]
    return [
        Check("iterations", ITERATION_CASES, partial(iterations, horizon=short, cameras=cameras), 30),
        Check("synchronisations", ("a decision", "a micro-batch"), partial(synchronisations, horizon=short), 30),
        Check("copy streams", ("streams that hold memory",), partial(streams, horizon=short), 20),
        Check("pinned memory", ("host memory over rollout",), partial(pinned, horizon=short, cameras=cameras), 30),
        Check("float32 products", ("encode, high over highest",), partial(precision, cameras=cameras), 30),
    ]


def iterations(models: Models, horizon: int, cameras: int) -> Iterator[Found]:
    """The peak of each iteration of PPO's own loop: a second rollout beside the first shows here."""
    from rlft.rollout.store import StoreChoice
    from rlft.run.guards import Probe
    from rlft.run.runner import Runner

    decisions = 1 if models.scale.dry else 6
    overrides = [f"env.n_steps_rollout={ACT_STEPS * decisions}", f"train.n_train_itr={ITERATIONS}"]
    overrides += ["train.skip_initial_eval=true", "train.val_freq=0", "train.save_model_freq=0"]
    overrides += [f"buffer.device={models.scale.device}"]  # where a second rollout would hurt
    side = models.side(horizon, cameras, *overrides)
    device, peaks, sizes = parse_device(side.cfg.model.device), [], []

    def log(kind: str, done: int, scalars: dict[str, float]) -> None:
        if kind == "rl":
            peaks.append(held_bytes(device))
            sizes.append(scalars["buffer/bytes"])

    nothing: Any = SimpleNamespace(success=0.0, ci95=(0.0, 1.0), scalars=dict)
    tracker: Any = SimpleNamespace(log=log)
    progress: Any = SimpleNamespace(update=lambda *_, **__: None)
    runner = Runner(
        side.cfg,
        side.objective,
        side.sampler("prefix", decisions),
        side.updater,
        store=StoreChoice("prefix", "benchmark"),
        evaluate=lambda _: nothing,
        probe=lambda episodes: Probe(episodes, 1.0, 1.0),
        save=lambda state, best: None,
        tracker=tracker,
        progress=progress,
    )
    held_bytes(device)  # starts the first iteration's count
    runner.run()
    note = f"first {size(peaks[0])}, a rollout is {size(sizes[0])}"
    for case, peak in zip(ITERATION_CASES, peaks[1:], strict=True):
        yield claim(case, peak / peaks[0], 1.02, "x", f"{note}, this one {size(peak)}")


def held_bytes(device: torch.device) -> int:
    """The most that was allocated since the last call; on the CPU what live tensors hold now."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # touching every object also touches what is deprecated
        storages = [x.untyped_storage() for x in gc.get_objects() if type(x) is torch.Tensor]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


def reads(device: torch.device, work: Callable[[], Any]) -> int:
    """How often a call waits for the device: synchronising operations on CUDA, numbers read from tensors elsewhere."""
    if device.type != "cuda":
        with ReadCounter() as counter:
            work()
        return counter.count
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing" in str(warning.message) for warning in seen)


class ReadCounter(TorchDispatchMode):
    """Counts the operators that read one number of a tensor on the host."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Count, and do it."""
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def synchronisations(models: Models, horizon: int) -> Iterator[Found]:
    """What one more decision, and one more micro-batch, add to a rollout's and an update's waits for the device."""
    side = models.side(horizon, 1)
    device = parse_device(side.cfg.model.device)
    buffer = side.rollout("prefix", decisions=2)
    few, many = (side.sampler("prefix", decisions) for decisions in (1, 3))
    side.update(buffer)
    one, three = (reads(device, partial(sampler.collect, 0)) for sampler in (few, many))
    yield Found("a decision", (three - one) / 2, "reads", f"{one} in a rollout of one; K={DENOISE_STEPS}")
    rows, found = 2 * models.scale.rows, []
    for count in (2, 4):
        side.updater.cfg = replace(side.updater.cfg, micro_batch_size=rows // count, batch_size=rows)
        found.append(reads(device, partial(side.update, buffer)))
    yield Found("a micro-batch", (found[1] - found[0]) / 2, "reads", f"{found[0]} in a minibatch of two")


def streams(models: Models, horizon: int) -> Iterator[Found]:
    """On how many CUDA streams the allocator holds memory after several epochs: each keeps blocks of its own."""
    case, device = "streams that hold memory", parse_device(models.scale.device)
    if device.type != "cuda":
        yield Found(case, None, "", "no CUDA device: there are no streams")
        return
    side = models.side(horizon, 1)
    buffer = side.rollout("prefix")
    torch.cuda.empty_cache()
    for _ in range(6):
        side.update(buffer)
    count = len({segment["stream"] for segment in torch.cuda.memory_snapshot()})
    held, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    yield claim(case, count, 2, "streams", f"after 6 epochs; reserved {size(held)}, allocated {size(used)}")


def pinned(models: Models, horizon: int, cameras: int) -> Iterator[Found]:
    """Host memory that a rollout there takes, over its own size: pinned blocks may be rounded up to powers of two."""
    case = "host memory over rollout"
    if not models.scale.on_gpu:
        yield Found(case, None, "", "no CUDA device: nothing is pinned")
        return
    side = models.side(horizon, cameras)
    side.env = StillEnv(80, side.env.spec.cameras)  # not a power of two
    sampler = side.sampler("prefix")
    host = torch.device(side.cfg.buffer.device)
    before = free_bytes(host)
    buffer, _ = sampler.collect(0)
    taken = before - free_bytes(host)
    note = f"{size(taken)} for {size(buffer.nbytes())}, from what the kernel calls available"
    yield claim(case, taken / buffer.nbytes(), 1.2, "x", note)


def precision(models: Models, cameras: int) -> Iterator[Found]:
    """Encoding with TF32 products against strict float32: lerobot keeps SigLIP in float32."""
    cfg = models.settings(models.scale.horizons[-1], cameras)
    policy, n = models.policy(cfg), models.scale.batches[-1]
    inputs = parts.prepared(policy, cfg, n)

    def encode(name: str) -> float:
        torch.set_float32_matmul_precision(name)
        with torch.no_grad():
            policy.encode(inputs)
        synchronize(policy.device)
        return float(n)

    before = torch.get_float32_matmul_precision()
    try:
        pairs = parts.compare(partial(encode, "high"), partial(encode, "highest"), models.scale)
    finally:
        torch.set_float32_matmul_precision(before)
    yield ratio("encode, high over highest", pairs, "prefixes/s", "strict float32", note=f"set here: {before}, B={n}")
