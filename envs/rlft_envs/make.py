"""Builds the VecEnv that the settings describe; simulators are imported here and not before."""

from __future__ import annotations

import logging
from dataclasses import replace

from rlft.types import EnvSettings, VecEnv
from rlft_envs.assets import point_maniskill_at
from rlft_envs.errors import EnvSetupError, unknown
from rlft_envs.maniskill.devices import physics_device, render_device
from rlft_envs.maniskill.vulkan import check_vulkan
from rlft_envs.rewards import REWARD_MODES
from rlft_envs.simulators import SIMULATORS

log = logging.getLogger(__name__)


def make_vec_env(settings: EnvSettings) -> VecEnv:
    """Build the environments.

    CPU physics runs in ``settings.num_workers`` worker processes, or in this process where that is 0; GPU physics is
    one batched object in this process.

    Raises:
        EnvSetupError: the settings name something that does not exist, or that cannot run on this machine.
        WorkerError: a worker process could not be started.
    """
    if settings.simulator not in SIMULATORS:
        raise unknown("env.simulator", settings.simulator, SIMULATORS)
    if settings.reward.mode not in REWARD_MODES:
        raise unknown("env.reward.mode", settings.reward.mode, REWARD_MODES)
    if settings.num_envs < 1:
        raise EnvSetupError(f"env.num_envs = {settings.num_envs}; at least 1 is needed")
    if len({camera.name for camera in settings.cameras}) != len(settings.cameras):
        raise EnvSetupError(f"env.cameras names repeat: {[camera.name for camera in settings.cameras]}")
    if settings.simulator == "maniskill":
        check_vulkan()
        settings = replace(settings, render_backend=render_device(settings))  # once, the same for every worker
        log.info("ManiSkill: %s renders on %s", physics_device(settings), settings.render_backend)
    if settings.sim_backend == "gpu":
        if settings.simulator != "maniskill":
            raise EnvSetupError(f"env.simulator = {settings.simulator!r} has no GPU physics; use sim.backend=cpu")
        point_maniskill_at(settings)
        from rlft_envs.maniskill.batched import ManiSkillGpuVecEnv

        return ManiSkillGpuVecEnv(settings)
    if settings.num_workers == 0:
        from rlft_envs.group import InProcessVecEnv

        return InProcessVecEnv(settings)
    from rlft_envs.workers.pool import WorkerPool

    return WorkerPool(settings)
