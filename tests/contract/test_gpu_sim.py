"""The batched simulation's buffers and complaints, on the stand-in, which keeps both as the simulator on a GPU does."""

import os
from dataclasses import replace

import numpy as np
import pytest
import sapien
import torch
from batched_maniskill import build_by_row
from vec_env_factories import PUSH_CUBE, SIMULATORS, A, E

from rlft_envs.errors import EnvSetupError
from rlft_envs.maniskill.batched import ManiSkillGpuVecEnv
from rlft_envs.maniskill.gpu_errors import PhysxWatch
from rlft_envs.maniskill.reading import render_cameras

pytestmark = pytest.mark.simulator

OVERFLOW = (
    b"[2026-03-06 18:26:36.049] [SAPIEN] [critical] Contact buffer overflow detected, please increase its size to at "
    b"least 1300000 in the scene desc!\n"
)


def actions(seed):
    return np.random.default_rng(seed).uniform(-1, 1, (E, A, 4)).astype(np.float32)


@pytest.fixture
def batched(environments):
    env = environments.get(SIMULATORS[2])
    env.reset(range(E), [1, 2, 3, 4])
    return env


def test_a_picture_that_is_kept_outlives_the_next_capture(batched):
    kept = render_cameras(batched._env, ["base_camera"])["base_camera"]
    before = kept.clone()
    batched.step_chunk(actions(0))
    assert torch.equal(kept, before)
    assert not torch.equal(kept, render_cameras(batched._env, ["base_camera"])["base_camera"])


def test_rows_that_are_not_refreshed_stay_as_they_were(batched):
    before = {name: image.clone() for name, image in batched._now.obs.images.items()}
    batched._env.step(torch.from_numpy(actions(1)[:, 0]))
    batched._refresh(torch.tensor([1]))
    for name, image in batched._now.obs.images.items():
        assert not torch.equal(image[1], before[name][1])
        assert torch.equal(image[[0, 2, 3]], before[name][[0, 2, 3]])


def test_what_a_step_reported_outlives_the_next_step():
    env = ManiSkillGpuVecEnv(
        replace(PUSH_CUBE, env_id="PickCube-v1", cameras=(), make_kwargs={}, sim_backend="gpu"), build=build_by_row
    )
    env.reset(range(E), [1, 2, 3, 4])
    first = env.step_chunk(np.zeros((E, A, 4), np.float32))
    flags = ("success", "success_now", "terminated", "truncated", "invalid")
    before = {name: values.clone() for name, values in first.metrics.items()}
    before |= {name: getattr(first, name).clone() for name in flags}
    second = env.step_chunk(actions(2))
    assert any(not torch.equal(second.metrics[name], before[name]) for name in first.metrics)
    for name, values in [*first.metrics.items(), *((name, getattr(first, name)) for name in flags)]:
        assert torch.equal(values, before[name]), name
    env.close()


def test_a_complaint_of_physx_stops_the_chunk(batched, monkeypatch, capfd):
    monkeypatch.setattr(batched._env, "complaint", OVERFLOW)
    with pytest.raises(EnvSetupError, match=r"gpu_memory_config\.max_rigid_contact_count=2097152 \(now 524288\)"):
        batched.step_chunk(actions(3))
    assert capfd.readouterr().err.count("Contact buffer overflow") == A


def test_sapiens_own_lines_pass_the_watch_and_are_seen(capfd):
    """That SAPIEN writes to file descriptor 2, where the watch reads."""
    with PhysxWatch(), pytest.raises(RuntimeError, match="convex mesh"):
        sapien.physx.PhysxCollisionShapeConvexMesh(
            vertices=np.zeros((1, 3), np.float32), scale=[1, 1, 1], material=sapien.physx.PhysxMaterial(0.1, 0.1, 0.0)
        )
    os.write(2, b"end\n")
    written = capfd.readouterr().err
    assert "[SAPIEN] [critical]" in written
    assert written.endswith("end\n")
