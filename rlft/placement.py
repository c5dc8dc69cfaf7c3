"""Devices of simulator, policy and rollout buffer: parsed once, checked, and every copy between them made here."""

import logging
import math
import mmap
import os
import re
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Self

import numpy as np
import psutil
import torch
from torch import Tensor

from rlft.config.schema import RunConfig
from rlft.errors import ConfigError, RlftError
from rlft.rows import TensorRows

log = logging.getLogger(__name__)

DEVICE = re.compile(r"cpu|cuda(:\d+)?")
SHARE = 0.6  # of the free memory, for stored prefixes: gradients, optimiser and activations are still to come
REGISTER_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every GPU of the process


@dataclass(frozen=True)
class Placement:
    """Where simulator, policy and buffer live."""

    sim: torch.device  # device of physics and of the observations that a GPU simulator returns; `cpu` for CPU physics
    policy: torch.device  # device of the network
    buffer: torch.device  # device of the stored rollout
    sim_tensors: bool = False  # whether the simulator takes tensors on `sim` (GPU physics) or numpy arrays (CPU)

    @classmethod
    def from_config(cls, cfg: RunConfig) -> Self:
        """Parse and check ``sim.device``, ``model.device`` and ``buffer.device``. Nothing falls back to another device.

        Raises:
            ConfigError: a device is misspelled or not in this machine; all three settings are reported together.
        """
        wanted = {"sim.device": cfg.sim.device, "model.device": cfg.model.device, "buffer.device": cfg.buffer.device}
        problems = [text for key, name in wanted.items() if (text := device_problem(key, name)) is not None]
        if cfg.sim.backend == "gpu" and not cfg.sim.device.startswith("cuda"):
            problems.append(
                f"sim.backend = gpu with sim.device = {cfg.sim.device}: GPU physics needs a CUDA device; "
                "set sim.device=cuda:0, or sim.backend=cpu"
            )
        if problems:
            raise ConfigError(problems)
        sim, policy, buffer = (parse_device(name) for name in wanted.values())
        shared = [d for d, count in Counter((sim, policy, buffer)).items() if count > 1 and d.type == "cuda"]
        if shared and (visible := torch.cuda.device_count()) > 1:
            text = "%s is shared by several parts while %d GPUs are visible; placement=three_gpus spreads them"
            log.warning(text, shared[0], visible)
        return cls(sim, policy, buffer, physics_backend(cfg) == "gpu")

    def to_policy(self, value: Any) -> Any:
        """Copy to the policy's device what :func:`move` takes."""
        return move(value, self.policy)

    def to_sim(self, value: Any) -> Any:
        """Copy to where the simulator takes its input: tensors on ``sim`` for GPU physics, numpy arrays otherwise."""
        if self.sim_tensors:
            return move(value, self.sim)
        return to_numpy(value) if isinstance(value, Tensor) else value

    def activate(self) -> None:
        """Make the policy's GPU the one that this thread means where none is named; pinning opens a context on it."""
        if self.policy.type == "cuda":
            torch.cuda.set_device(self.policy)

    def enter_simulator_thread(self) -> None:
        """The same for a thread that steps simulators: CUDA's present device belongs to a thread, and begins as 0."""
        if self.sim_tensors:
            torch.cuda.set_device(self.sim)


def physics_backend(cfg: RunConfig) -> str:
    """``gpu`` or ``cpu``: what ``sim.backend`` says; for ``auto``, where ``sim.device`` is."""
    if cfg.sim.backend != "auto":
        return cfg.sim.backend
    return "gpu" if cfg.sim.device.startswith("cuda") else "cpu"


def worker_count(cfg: RunConfig, cores: int | None = None) -> int:
    """Processes that step CPU physics: as set, else one for each of ``cores`` (None: those of this process)."""
    return (cores or len(os.sched_getaffinity(0))) if cfg.sim.num_workers is None else cfg.sim.num_workers


def overlaps(cfg: RunConfig, cores: int | None = None) -> bool:
    """Whether the rollout simulates one group of environments while the policy decides for the other."""
    if cfg.sim.overlap is not None:
        return cfg.sim.overlap
    if cfg.env.num_envs == 1:
        return False
    apart = parse_device(cfg.sim.device) != parse_device(cfg.model.device)
    return apart if physics_backend(cfg) == "gpu" else worker_count(cfg, cores) >= 2


def group_count(cfg: RunConfig, cores: int | None = None) -> int:
    """Groups that the rollout's environments are decided in."""
    return cfg.sim.num_groups or (2 if overlaps(cfg, cores) else 1)


def parse_device(name: str) -> torch.device:
    """``cpu``, ``cuda`` (the first one) or ``cuda:N``."""
    return torch.device("cuda:0" if name == "cuda" else name)


def device_problem(key: str, name: str) -> str | None:
    """What is wrong with one device setting on this machine, or None."""
    if not DEVICE.fullmatch(name):
        return f"{key} = {name!r}: must be cpu, or cuda:N with N from 0"
    if name == "cpu":
        return None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        return f"{key} = {name}: no CUDA device is visible ({_why_no_cuda()}); set {key}=cpu, or placement=cpu for all"
    index = parse_device(name).index
    if index >= count:
        return f"{key} = {name}: this process sees {count} CUDA device(s), cuda:0 to cuda:{count - 1}"
    return None


def _why_no_cuda() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not visible.strip():
        return "CUDA_VISIBLE_DEVICES is set and empty"
    if not torch.backends.cuda.is_built():
        return "this build of torch has no CUDA"
    return "no NVIDIA driver or device was found" + (f", CUDA_VISIBLE_DEVICES={visible}" if visible else "")


def free_bytes(device: torch.device) -> int:
    """What a device could still hold, bytes: the driver's figure, or what the kernel calls available."""
    if torch.get_device_module(device) is torch.cuda:
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def gigabytes(count: float) -> str:
    """Bytes for a person to read, in 10^9 bytes."""
    return f"{count / 1e9:.2f} GB"


def move(value: Any, device: torch.device) -> Any:
    """Bring an array, a tensor, a :class:`rlft.rows.TensorRows`, or a dict, list or tuple of these to a device.

    On the same device memory may be shared. Other values (texts, None) pass unchanged.
    """
    if isinstance(value, np.ndarray):
        # torch cannot mark a tensor read-only, and a simulator's read-only array must not become writable by it.
        value = torch.from_numpy(value if value.flags.writeable else value.copy())
    if isinstance(value, Tensor):
        return _move_tensor(value, device)
    if isinstance(value, dict):
        return {key: move(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(move(item, device) for item in value)
    return value.map(lambda tensor: _move_tensor(tensor, device)) if isinstance(value, TensorRows) else value


HOST = torch.device("cpu")


def to_host(value: Any) -> Any:
    """Bring to the host what :func:`move` takes. From a GPU this waits for all work before it."""
    return move(value, HOST)


def to_numpy(value: Any) -> np.ndarray:
    """An array or a tensor as a numpy array, which shares memory that is on the host already."""
    return to_host(value).detach().numpy() if isinstance(value, Tensor) else np.asarray(value)


def together(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors on one device: where the first of them is that is not on the host, else on the host."""
    return move(list(tensors), next((x.device for x in tensors if x.device != HOST), HOST))


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of the settings or the statistics as a tensor ``[len(values)]``, brought to a device once.

    Made anew in every step they would be a copy each time for which the host waits; this one has arrived when it is
    given, whichever stream uses it. It is shared: do not write to it.
    """
    with torch.inference_mode(False):  # a tensor of inference mode could not be used in training later
        return torch.tensor(values, dtype=dtype, device=device)


def allocate(shape: Sequence[int], dtype: torch.dtype, device: torch.device, *, peer: torch.device) -> Tensor:
    """Zeros on a device; pinned where host memory exchanges rows with the CUDA device ``peer``.

    torch's own pinned memory is rounded up to a power of two, which doubles what some rollouts take. This is whole
    pages, registered with CUDA until the tensor is gone.

    Raises:
        RlftError: CUDA does not pin it.
    """
    count = math.prod(shape)
    if device.type != "cpu" or peer.type != "cuda" or count == 0:
        return torch.zeros(tuple(shape), dtype=dtype, device=device)
    pages = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # zeros
    flat = torch.frombuffer(pages, dtype=dtype)
    cudart, start, nbytes = torch.cuda.cudart(), flat.data_ptr(), flat.nbytes
    status = int(cudart.cudaHostRegister(start, nbytes, REGISTER_PORTABLE))
    # A refusal ends the run. To go on with memory that is not pinned would be right but slow, and is not to be had: the
    # error stays in the CUDA runtime, and torch's next kernel would raise it.
    if status != 0:
        reason = cudart.cudaGetErrorString(cudart.cudaError(status))
        raise RlftError(
            f"buffer.device = cpu: CUDA does not pin {gigabytes(nbytes)} of host memory ({reason}, error {status}); "
            "try fewer env.num_envs or env.n_steps_rollout, buffer.store=images, or buffer.device=cuda:0"
        )
    release = weakref.finalize(flat.untyped_storage(), cudart.cudaHostUnregister, start)
    release.atexit = False  # a process that ends gives its memory back without going through it
    return flat.view(tuple(shape))


def select_rows(store: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """Rows of a tensor, int64 ``rows`` on its device, as a tensor on ``device``.

    Rows of host memory are gathered in a block of torch's own pinned pool, rounded up to a power of two: as large as a
    part of a minibatch, and used again as soon as the copy out of it is done, which the pool knows from its events.
    """
    if store.device.type != "cpu" or device.type != "cuda":
        return _move_tensor(store[rows], device)
    pinned = torch.empty((len(rows), *store.shape[1:]), dtype=store.dtype, pin_memory=True)
    torch.index_select(store, 0, rows, out=pinned)
    return pinned.to(device, non_blocking=True)


def prefetched[T](
    batches: Iterator[T], device: torch.device, *, tensors: Callable[[T], Iterable[Tensor]]
) -> Iterator[T]:
    """Batches, each brought to a CUDA device on a stream of its own while the one before it is used.

    Two batches are alive at a time; each is gathered and copied when it is asked for. On the CPU there is nothing to
    gain: they come one by one. ``tensors`` are all of a batch: their memory must outlive the stream that uses them.
    """
    if device.type != "cuda":
        yield from batches
        return
    copies = _copy_stream(device)
    copies.wait_stream(torch.cuda.current_stream(device))  # what the batches are gathered from is written there
    with torch.cuda.stream(copies):
        upcoming = next(batches, None)
    while upcoming is not None:
        batch, here = upcoming, torch.cuda.current_stream(device)
        here.wait_stream(copies)
        for tensor in tensors(batch):
            tensor.record_stream(here)
        with torch.cuda.stream(copies):
            upcoming = next(batches, None)
        yield batch


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of a device that batches arrive on: one, for torch keeps the memory of each stream apart."""
    return torch.cuda.Stream(device)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch compute with ``count`` threads on the CPU; None leaves them as they are.

    Threads that wait for a core which a simulator has taken cost far more than they gain: they spin.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def synchronize(*devices: torch.device) -> None:
    """Wait until all work queued on the CUDA devices among these is done."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def _move_tensor(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.device == device:
        return tensor
    if tensor.device.type == "cpu" and device.type == "cuda":
        # Pinned host memory lets the copy overlap with compute; the stream orders it before any use on the device.
        return tensor.pin_memory().to(device, non_blocking=True)
    # Device to host must block: the host would otherwise read memory that is not written yet.
    return tensor.to(device)
