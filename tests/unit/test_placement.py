import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from rlft.config.load import load
from rlft.errors import ConfigError
from rlft.placement import Placement
from rlft.policy.base import TensorRows

CPU = torch.device("cpu")
META = torch.device("meta")  # a device that is not the CPU, on every machine
DEFAULT = load("train_rl")


def place(monkeypatch, gpus: int, **devices: str) -> Placement:
    """The placement of a machine with so many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    cfg = copy.deepcopy(DEFAULT)
    cfg.sim.backend = devices.pop("backend", "auto")
    for section, device in devices.items():
        getattr(cfg, section).device = device
    return Placement.from_config(cfg)


def test_the_cpu_is_always_there(monkeypatch):
    assert place(monkeypatch, 0) == Placement(CPU, CPU, CPU, False)


def test_three_gpus(monkeypatch):
    placed = place(monkeypatch, 3, sim="cuda", model="cuda:1", buffer="cuda:2")
    assert placed == Placement(torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cuda:2"), True)
    assert placed.describe() == "simulator on cuda:0, policy on cuda:1, buffer on cuda:2"


def test_no_cuda_names_the_setting_and_offers_the_cpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(ConfigError) as caught:
        place(monkeypatch, 0, sim="cuda:0", buffer="cuda:1")
    text = str(caught.value)
    assert "sim.device = cuda:0: no CUDA device is visible" in text
    assert "set sim.device=cpu, or placement=cpu for all" in text
    assert "buffer.device = cuda:1" in text
    assert "model.device" not in text


def test_an_empty_visible_list_is_named(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES is set and empty"):
        place(monkeypatch, 0, model="cuda:0")


def test_an_index_beyond_the_last_is_told(monkeypatch):
    with pytest.raises(ConfigError, match=r"model.device = cuda:2: this process sees 2 CUDA.*cuda:0 to cuda:1"):
        place(monkeypatch, 2, model="cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:-1", "cuda:x", "CPU", "", "cuda:0,1", "mps"])
def test_a_misspelled_device_is_told(monkeypatch, name):
    with pytest.raises(ConfigError, match=r"must be cpu, or cuda:N"):
        place(monkeypatch, 8, model=name)


def test_gpu_physics_needs_a_gpu(monkeypatch):
    with pytest.raises(ConfigError, match=r"sim.backend = gpu with sim.device = cpu"):
        place(monkeypatch, 1, backend="gpu")


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
    moved = placed.to_policy(
        {"x": [array, torch.ones(2)], "rows": Rows(torch.ones(2), torch.ones(2)), "t": ("text", None)}
    )
    assert moved["x"][0].device == moved["x"][1].device == moved["rows"].b.device == META
    assert (moved["x"][0].dtype, moved["x"][0].shape) == (torch.uint8, (2, 3))
    assert moved["t"] == ("text", None)
    assert placed.to_buffer(array).device == META


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
