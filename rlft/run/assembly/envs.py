"""Environments from settings."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from rlft.assets.sources import assets_root
from rlft.config.schema import CameraConfig, RunConfig
from rlft.placement import group_count, physics_backend, worker_count
from rlft.types import CameraSettings, ConfigurationSpace, EnvSettings, RewardSettings, VecEnv
from rlft_envs import task
from rlft_envs.simulator import make_vec_env, simulator_of


def env_settings(cfg: RunConfig, num_envs: int) -> EnvSettings:
    """What the simulator is told."""
    e, sim = cfg.env, cfg.sim
    return EnvSettings(
        simulator=e.simulator,
        env_id=e.id,
        num_envs=num_envs,
        max_episode_steps=e.max_episode_len,
        control_mode=e.control_mode,
        cameras=tuple(_camera(camera) for camera in e.cameras),
        state_terms=tuple(e.state_terms),
        privileged=cfg.critic.inputs != "features",
        instruction=e.instruction,
        robot=e.robot,
        shader=e.shader,
        sim_backend=physics_backend(cfg),
        render_backend=sim.render_backend,
        sim_device=sim.device,
        num_workers=min(num_envs, worker_count(cfg)),
        step_timeout_s=sim.step_timeout_s,
        max_restarts=sim.max_restarts,
        reward=RewardSettings(e.reward.mode, e.reward.scale, e.reward.success_bonus),
        reward_per_chunk=e.reward.mode == "dense_difference" and cfg.train.gamma_per == "chunk",
        episode_ends_on_success=e.episode_ends_on_success,
        make_kwargs=e.make_kwargs,
        options=e.options,
        assets_root=None if (root := assets_root(cfg.assets.root)) is None else str(root),
    )


def _camera(c: CameraConfig) -> CameraSettings:
    eye, target = (None if point is None else (point[0], point[1], point[2]) for point in (c.eye, c.target))
    return CameraSettings(c.name, c.height or 0, c.width or 0, c.fov, eye, target)


def policy_threads(cfg: RunConfig) -> int | None:
    """CPU threads of the policy during rollouts: the cores that the other groups' simulators leave; None: all."""
    groups = group_count(cfg)
    if groups == 1 or physics_backend(cfg) == "gpu":
        return None
    simulating = min(worker_count(cfg), cfg.env.num_envs) * (groups - 1) // groups
    return max(1, len(os.sched_getaffinity(0)) - simulating)


def build_rollout_envs(cfg: RunConfig) -> list[VecEnv]:
    """The rollout's environments in their groups, started together; errors as in :func:`make_vec_env`."""
    groups, workers = group_count(cfg), worker_count(cfg)
    settings = []
    for envs in np.array_split(np.arange(cfg.env.num_envs), groups):
        share = min(len(envs), -(-workers // groups))
        settings.append(replace(env_settings(cfg, len(envs)), num_workers=share, first_env=int(envs[0])))
    if workers == 0 or physics_backend(cfg) == "gpu":
        return [make_vec_env(one) for one in settings]
    with ThreadPoolExecutor(groups) as pool:  # worker processes take seconds to start: let them start side by side
        started = [pool.submit(make_vec_env, one) for one in settings]
    whole = [future.result() for future in started if not future.exception()]
    if len(whole) < groups:
        for env in whole:
            env.close()
    return [future.result() for future in started]


def build_eval_env(cfg: RunConfig) -> VecEnv:
    """Environments for evaluation, started; errors as in :func:`make_vec_env`."""
    e = cfg.eval
    return make_vec_env(eval_settings(cfg, e.num_envs if e.select == "all" else min(e.num_envs, e.episodes)))


def eval_settings(cfg: RunConfig, num_envs: int) -> EnvSettings:
    """What the simulator is told for evaluation."""
    settings, end = env_settings(cfg, num_envs), cfg.eval.episode_end
    return settings if end is None else replace(settings, episode_ends_on_success=end == "success")


def check_task(cfg: RunConfig) -> None:
    """Refuse a task that cannot be had, before anything is built; see :meth:`rlft_envs.simulator.Simulator.check`."""
    settings = env_settings(cfg, 1)
    simulator_of(settings).check(settings)


def configuration_space(cfg: RunConfig) -> ConfigurationSpace | None:
    """The task's numbered configurations with their labels; None where it does not number them."""
    return task.configuration_space(env_settings(cfg, 1))
