"""Builds the VecEnv that the settings describe; simulators are imported here and not before."""

from __future__ import annotations

from rlft.types import EnvSettings, VecEnv
from rlft_envs.errors import EnvSetupError, check_known
from rlft_envs.rewards import REWARD_MODES
from rlft_envs.simulator import simulator_of


def make_vec_env(settings: EnvSettings) -> VecEnv:
    """Build the environments.

    CPU physics runs in ``settings.num_workers`` worker processes, or in this process where that is 0; GPU physics is
    one batched object in this process.

    Raises:
        EnvSetupError: the settings name something that does not exist, or that cannot run on this machine.
        WorkerError: a worker process could not be started.
    """
    simulator = simulator_of(settings)
    check_known("env.reward.mode", [settings.reward.mode], REWARD_MODES)
    if settings.num_envs < 1:
        raise EnvSetupError(f"env.num_envs = {settings.num_envs}; at least 1 is needed")
    if len({camera.name for camera in settings.cameras}) != len(settings.cameras):
        raise EnvSetupError(f"env.cameras names repeat: {[camera.name for camera in settings.cameras]}")
    settings = simulator.resolved(settings)
    if settings.sim_backend == "gpu":
        return simulator.batched(settings)
    from rlft_envs.workers.pool import WorkerPool

    return WorkerPool(settings)
