"""Which device simulates and renders: named with its index, the same for both, resolved once."""

from dataclasses import replace

import pytest
import torch

from rlft.types import CameraSettings, EnvSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.maniskill import simulator
from rlft_envs.maniskill.devices import on_gpu, physics_device, render_device
from rlft_envs.simulator import make_vec_env

CPU = EnvSettings("maniskill", "PushCube-v1", 1, 10, "pd_ee_delta_pos", cameras=(CameraSettings("base_camera", 8, 8),))
GPU = replace(CPU, sim_backend="gpu")


@pytest.mark.parametrize(
    ("device", "asked", "physics", "renderer"),
    [
        ("cuda", None, "physx_cuda:0", "sapien_cuda:0"),
        ("cuda:1", None, "physx_cuda:1", "sapien_cuda:1"),
        ("cuda:1", "gpu", "physx_cuda:1", "sapien_cuda:1"),
        ("cuda:1", "sapien_cuda", "physx_cuda:1", "sapien_cuda:1"),
        ("cuda:2", "cuda:2", "physx_cuda:2", "sapien_cuda:2"),
    ],
)
def test_gpu_physics_renders_on_its_own_gpu_by_index(device, asked, physics, renderer):
    settings = replace(GPU, sim_device=device, render_backend=asked)
    assert (physics_device(settings), render_device(settings)) == (physics, renderer)


@pytest.mark.parametrize("asked", ["cuda:0", "sapien_cuda:0", "gpu:0", "cpu", "sapien_cpu", "none", "pci:0000:01:00.0"])
def test_another_renderer_for_gpu_physics_is_refused(asked):
    with pytest.raises(EnvSetupError, match=rf"sim\.render_backend = '{asked}', .* sim\.device=cuda:1"):
        render_device(replace(GPU, sim_device="cuda:1", render_backend=asked))


@pytest.mark.parametrize("device", ["cpu", "gpu", "cuda:x", "pci:0000:01:00.0"])
def test_gpu_physics_needs_a_gpu(device):
    with pytest.raises(EnvSetupError, match=rf"sim\.device = '{device}' runs no GPU physics"):
        physics_device(replace(GPU, sim_device=device))


def test_without_cameras_nothing_renders():
    assert render_device(replace(GPU, sim_device="cuda:1", cameras=())) == "none"
    assert render_device(replace(CPU, cameras=())) == "none"


@pytest.mark.parametrize(
    ("gpus", "asked", "renderer"),
    [
        *((0, None, "sapien_cpu"), (2, None, "sapien_cuda:0"), (2, "cpu", "cpu"), (2, "gpu", "sapien_cuda:0")),
        (2, "sapien_cuda:1", "sapien_cuda:1"),
        (0, "pci:0000:01:00.0", "pci:0000:01:00.0"),
    ],
)
def test_the_renderer_beside_cpu_physics(monkeypatch, gpus, asked, renderer):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    settings = replace(CPU, render_backend=asked)
    assert (physics_device(settings), render_device(settings)) == ("physx_cpu", renderer)


def test_all_workers_are_told_the_same_renderer_and_the_log_says_which(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(simulator, "check_vulkan", lambda: None)
    monkeypatch.setattr("rlft_envs.workers.pool.WorkerPool", lambda settings: settings)
    with caplog.at_level("INFO", logger="rlft_envs.maniskill.simulator"):
        settings = make_vec_env(replace(CPU, num_workers=2))
    assert settings.render_backend == "sapien_cuda:0"
    assert "physx_cpu renders on sapien_cuda:0" in caplog.text


def test_the_simulators_gpu_is_torchs_current_one(monkeypatch):
    class Current:
        now = None

        def __init__(self, device):
            self.device = device

        def __enter__(self):
            Current.now = self.device

        def __exit__(self, *error):
            Current.now = None

    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with on_gpu(torch.device("cuda:1")):
        assert Current.now is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with on_gpu(torch.device("cuda:1")):
        assert Current.now == torch.device("cuda:1")
    with on_gpu(torch.device("cpu")):
        assert Current.now is None
