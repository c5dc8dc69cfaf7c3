import mmap
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from rlft import placement
from rlft.config.load import changed, load
from rlft.errors import ConfigError, RlftError
from rlft.placement import Placement, allocate, physics_backend, prefetched, select_rows, torch_threads
from rlft.rows import TensorRows
from rlft.run.assembly.envs import env_settings

CPU = torch.device("cpu")
META = torch.device("meta")  # a device that is not the CPU, on every machine
DEFAULT = load("train_rl")
PAGE = mmap.PAGESIZE


def place(monkeypatch, gpus: int, **devices: str) -> Placement:
    """The placement of a machine with so many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    changes = {"sim.backend": devices.pop("backend", "auto")}
    changes |= {f"{section}.device": device for section, device in devices.items()}
    return Placement.from_config(changed(DEFAULT, changes))


def test_devices_of_machines_with_none_and_three_gpus(monkeypatch):
    assert place(monkeypatch, 0) == Placement(CPU, CPU, CPU, False)
    placed = place(monkeypatch, 3, sim="cuda", model="cuda:1", buffer="cuda:2")
    assert placed == Placement(torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cuda:2"), True)


def test_no_cuda_names_the_setting_and_offers_the_cpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(ConfigError) as caught:
        place(monkeypatch, 0, sim="cuda:0", buffer="cuda:1")
    text = str(caught.value)
    assert "sim.device = cuda:0: no CUDA device is visible" in text
    assert "set sim.device=cpu, or placement=cpu for all" in text
    assert "buffer.device = cuda:1" in text
    assert "model.device" not in text


@pytest.mark.parametrize(
    ("gpus", "changes", "said"),
    [
        (2, {"model": "cuda:2"}, r"model.device = cuda:2: this process sees 2 CUDA.*cuda:0 to cuda:1"),
        (1, {"backend": "gpu"}, r"sim.backend = gpu with sim.device = cpu"),
        (0, {"model": "cuda:0"}, "CUDA_VISIBLE_DEVICES is set and empty"),
        *((8, {"model": x}, "be cpu, or cuda:N") for x in ("gpu", "cuda:-1", "cuda:x", "CPU", "", "cuda:0,1", "mps")),
    ],
)
def test_what_is_no_device_here_is_told(monkeypatch, gpus, changes, said):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match=said):
        place(monkeypatch, gpus, **changes)


@pytest.mark.parametrize(
    ("words", "backend"),
    [
        ([], "cpu"),
        (["sim.device=cuda:0"], "gpu"),
        (["sim.device=cuda:0", "model.device=cuda:1", "buffer.device=cuda:2"], "gpu"),
        (["sim.device=cuda:0", "sim.backend=cpu"], "cpu"),
        (["placement=one_gpu"], "gpu"),
        (["placement=three_gpus"], "gpu"),
        (["placement=three_gpus", "sim.device=cpu"], "cpu"),
        (["placement=three_gpus", "sim.backend=cpu"], "cpu"),
    ],
)
@pytest.mark.parametrize("entry", ["train_rl", "evaluate"])
def test_the_simulators_device_decides_the_backend_unless_that_is_typed(entry, words, backend):
    cfg = load(entry, words)
    assert physics_backend(cfg) == env_settings(cfg, 2).sim_backend == backend


def test_cpu_physics_beside_gpu_rendering_takes_arrays(monkeypatch):
    assert not place(monkeypatch, 1, sim="cuda:0", backend="cpu").sim_tensors


def test_sharing_one_of_several_gpus_is_warned_of(monkeypatch, caplog):
    place(monkeypatch, 1, sim="cuda:0", model="cuda:0", buffer="cuda:0")
    assert caplog.text == ""
    place(monkeypatch, 4, sim="cuda:0", model="cuda:0", buffer="cuda:0")
    assert "placement=three_gpus" in caplog.text


@dataclass
class Rows(TensorRows):
    a: torch.Tensor
    b: torch.Tensor


def test_everything_moves():
    placed = Placement(CPU, META, META)
    array = np.ones((2, 3), dtype=np.uint8)
    rows = Rows(torch.ones(2), torch.ones(2))
    moved = placed.to_policy({"x": [array, torch.ones(2)], "rows": rows, "t": ("text", None)})
    assert moved["x"][0].device == moved["x"][1].device == moved["rows"].b.device == META
    assert (moved["x"][0].dtype, moved["x"][0].shape) == (torch.uint8, (2, 3))
    assert moved["t"] == ("text", None)


def test_the_simulator_on_the_cpu_gets_arrays_and_on_a_gpu_tensors():
    tensor = torch.ones(2, requires_grad=True)
    assert isinstance(Placement(CPU, CPU, CPU).to_sim(tensor), np.ndarray)
    assert Placement(META, CPU, CPU, sim_tensors=True).to_sim(np.ones(2)).device == META


def test_a_read_only_array_stays_as_it_is():
    array = np.zeros(3)
    array.flags.writeable = False
    tensor = Placement(CPU, CPU, CPU).to_policy(array)
    tensor += 1
    assert array.sum() == 0


class FakeStream:
    """Writes down who waits for whom."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")


@dataclass
class FakeBatch:
    number: int
    log: list

    def record_stream(self, stream):
        self.log.append(f"{self.number} is used by {stream.name}")


@pytest.fixture
def cuda_streams(monkeypatch):
    """Stand-ins: the log, the present stream of a device, and how many copy streams were made."""
    log, made = [], []
    current = [FakeStream("compute", log)]

    @contextmanager
    def stream(entered):
        current.append(entered)
        yield
        current.pop()

    def new(device):
        made.append(device)
        return FakeStream("copies", log)

    monkeypatch.setattr(torch.cuda, "Stream", new)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[-1])
    monkeypatch.setattr(torch.cuda, "stream", stream)
    placement._copy_stream.cache_clear()
    yield log, current, made
    placement._copy_stream.cache_clear()


def test_batches_arrive_on_one_stream_per_device(cuda_streams):
    log, _, made = cuda_streams
    for epoch in range(3):
        for device in ("cuda:0", "cuda:1"):
            list(prefetched(iter([FakeBatch(epoch, log)]), torch.device(device), tensors=lambda batch: [batch]))
    assert made == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert log.count("copies waits for compute") == 6  # each epoch sees what was written before it


def test_the_next_batch_is_copied_while_the_present_one_is_used(cuda_streams):
    log, current, _ = cuda_streams

    def batches():
        for number in range(2):
            log.append(f"gather {number} on {current[-1].name}")
            yield FakeBatch(number, log)

    for batch in prefetched(batches(), torch.device("cuda:0"), tensors=lambda batch: [batch]):
        log.append(f"train {batch.number} on {current[-1].name}")
    start = ["copies waits for compute", "gather 0 on copies", "compute waits for copies", "0 is used by compute"]
    then = ["gather 1 on copies", "train 0 on compute", "compute waits for copies", "1 is used by compute"]
    assert log == [*start, *then, "train 1 on compute"]


def test_on_the_cpu_batches_come_one_by_one():
    made = []
    for number in prefetched((made.append(i) or i for i in range(3)), CPU, tensors=lambda i: []):
        assert made == list(range(number + 1))


def test_rows_for_a_gpu_are_gathered_in_pinned_memory(monkeypatch):
    seen = {}

    def empty(shape, *, dtype, pin_memory, original=torch.empty):
        seen["pinned"] = pin_memory
        out = original(shape, dtype=dtype)
        seen["out"] = out
        return out

    def to(tensor, device, non_blocking=False):
        seen["to"] = (tensor is seen["out"], device, non_blocking)
        return tensor

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.Tensor, "to", to)
    rows = select_rows(torch.arange(8.0).view(4, 2), torch.tensor([3, 1]), torch.device("cuda:1"))
    assert rows.tolist() == [[6.0, 7.0], [2.0, 3.0]]
    assert seen["pinned"]
    assert seen["to"] == (True, torch.device("cuda:1"), True)


class FakeCudart:
    """Writes down which memory is registered, and refuses what it is told to, or what overlaps, as CUDA does."""

    def __init__(self, status=0):
        self.status, self.registered, self.released = status, {}, []

    def cudaHostRegister(self, start, nbytes, flags):  # noqa: N802  CUDA's own name
        pages = set(range(start // PAGE, -(-(start + nbytes) // PAGE)))
        if any(pages & other for other in self.registered.values()):
            return 712  # cudaErrorHostMemoryAlreadyRegistered
        if self.status == 0:
            self.registered[start] = pages
        return self.status

    def cudaHostUnregister(self, start):  # noqa: N802
        self.released.append(len(self.registered.pop(start)))
        return 0

    def cudaError(self, status):  # noqa: N802
        return status

    def cudaGetErrorString(self, status):  # noqa: N802
        return f"text of {status}"


def pinned(monkeypatch, *shape, dtype=torch.float32, cudart=None):
    cudart = cudart or FakeCudart()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart)
    return allocate(shape, dtype, CPU, peer=torch.device("cuda:0")), cudart


def test_what_exchanges_rows_with_a_gpu_is_whole_pages_that_are_registered_until_the_tensor_is_gone(monkeypatch):
    tensor, cudart = pinned(monkeypatch, 3, PAGE + 1)  # torch's own pinned memory would take 2^16 bytes
    assert tensor.shape == (3, PAGE + 1)
    assert not tensor.any()
    assert sum(map(len, cudart.registered.values())) == 13  # 49164 bytes
    assert tensor.data_ptr() % PAGE == 0
    tensor += 1.0
    view = tensor.flatten(0, 1)[-1:]
    del tensor
    assert cudart.released == []  # a view keeps the memory
    assert float(view) == 1.0
    del view
    assert cudart.released == [13]
    assert cudart.registered == {}


def test_small_tensors_share_no_page(monkeypatch):
    cudart = FakeCudart()
    dtypes = (torch.bool, torch.int64, torch.bfloat16)
    kept = [pinned(monkeypatch, 5, dtype=dtype, cudart=cudart)[0] for dtype in dtypes]
    assert len(cudart.registered) == len(kept) == 3


def test_memory_that_cuda_does_not_pin_ends_the_run_with_a_remedy(monkeypatch):
    with pytest.raises(RlftError, match=r"does not pin 0.00 GB.*text of 2, error 2.*buffer.device=cuda:0"):
        pinned(monkeypatch, 4, cudart=FakeCudart(status=2))


@pytest.mark.parametrize(("shape", "peer"), [((2, 3), CPU), ((2, 0), torch.device("cuda:0"))])
def test_nothing_is_pinned_without_a_gpu_or_without_bytes(monkeypatch, shape, peer):
    monkeypatch.setattr(torch.cuda, "cudart", None)
    assert not allocate(shape, torch.int64, CPU, peer=peer).any()
    assert allocate(shape, torch.int64, META, peer=torch.device("cuda:0")).device == META


def test_a_process_means_the_policys_gpu_and_a_simulators_thread_its_own(monkeypatch):
    named = []
    monkeypatch.setattr(torch.cuda, "set_device", named.append)
    placed = place(monkeypatch, 3, sim="cuda:0", model="cuda:1")
    placed.activate()
    placed.enter_simulator_thread()
    assert named == [placed.policy, placed.sim]
    cpu = place(monkeypatch, 0)
    cpu.activate()
    cpu.enter_simulator_thread()
    assert len(named) == 2


def test_threads_are_given_back():
    before = torch.get_num_threads()

    def fail():
        with torch_threads(1):
            raise RuntimeError(f"{torch.get_num_threads()} thread")

    with pytest.raises(RuntimeError, match="1 thread"):
        fail()
    assert torch.get_num_threads() == before


def test_free_memory_is_what_the_kernel_calls_available_and_of_a_gpu_what_the_driver_says(monkeypatch):
    assert 10**7 < placement.free_bytes(torch.device("cpu")) < 10**14
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 9))
    assert placement.free_bytes(torch.device("cuda:1")) == 7
