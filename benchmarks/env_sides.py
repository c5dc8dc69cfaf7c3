"""What the environment benchmarks run: our environments, stock ManiSkill ones, and a bare loop without any rules."""

import gc
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np

from rlft.types import CameraSettings, EnvSettings, VecEnv

CAMERA = "base_camera"
DRAWN_STEPS = 200  # random actions, played in turns


def env_settings(
    side: int, num_envs: int, num_workers: int, make_kwargs: Mapping[str, Any] | None = None
) -> EnvSettings:
    """PushCube through the task's own camera at ``side`` pixels; no episode ends while it is measured."""
    return EnvSettings(
        simulator="maniskill",
        env_id="PushCube-v1",
        num_envs=num_envs,
        num_workers=num_workers,
        max_episode_steps=1_000_000,
        control_mode="pd_ee_delta_pos",
        cameras=(CameraSettings(CAMERA, side, side),),
        render_backend="cpu",
        episode_ends_on_success=False,
        make_kwargs=make_kwargs or {},
    )


def random_actions(env: VecEnv) -> np.ndarray:
    """Float32 ``[n, E, d]`` within the bounds, the same in every run."""
    low, high = np.array(env.spec.action_low), np.array(env.spec.action_high)
    draws = np.random.default_rng(0).uniform(low, high, (DRAWN_STEPS, env.spec.num_envs, len(low)))
    return draws.astype(np.float32)


class OurSide:
    """Chunks of given actions in our environments.

    Args:
        env: the environments.
        actions: float32 ``[n, E, d]``, played in turns.
    """

    def __init__(self, env: VecEnv, actions: np.ndarray) -> None:
        self._env, self._actions, self._next = env, actions, 0

    def reset(self, seeds: Sequence[int]) -> Mapping[str, np.ndarray]:
        """Start the episodes and the actions anew; the images, camera name -> uint8 ``[E, height, width, 3]``."""
        self._next = 0
        return self._env.reset(range(len(seeds)), seeds).images

    def work(self, chunks: int, act_steps: int) -> float:
        """Step every environment by so many chunks; the number of environment steps done."""
        done = 0.0
        for _ in range(chunks):
            rows = [(self._next + j) % len(self._actions) for j in range(act_steps)]
            self._next += act_steps
            done += float(self._env.step_chunk(np.swapaxes(self._actions[rows], 0, 1)).n_executed.sum())
        return done


def _stock_env(settings: EnvSettings) -> gym.Env:
    """One stock environment that renders at every step, as ManiSkill's documentation builds it for a CPU."""
    import mani_skill.envs  # noqa: F401  registers the tasks
    import torch
    from mani_skill.utils.wrappers.gymnasium import CPUGymWrapper

    torch.set_num_threads(1)  # as in our workers; a thread pool in each would only fight the others
    env = gym.make(
        settings.env_id,
        num_envs=1,
        obs_mode="rgb",
        reward_mode="normalized_dense",
        control_mode=settings.control_mode,
        sim_backend="physx_cpu",
        render_backend="cpu",
        max_episode_steps=settings.max_episode_steps,
        sensor_configs={
            "shader_pack": settings.shader,
            **{camera.name: {"width": camera.width, "height": camera.height} for camera in settings.cameras},
        },
    )
    return CPUGymWrapper(env, ignore_terminations=True)


class StockSide:
    """Stock environments, a process each, started by forkserver (fork hangs in the simulator).

    Args:
        settings: task, controller, camera sizes and shader are taken from them.
        actions: float32 ``[n, E, d]``, played in turns.
    """

    def __init__(self, settings: EnvSettings, actions: np.ndarray) -> None:
        makers = [partial(_stock_env, settings)] * settings.num_envs
        self._env = gym.vector.AsyncVectorEnv(makers, context="forkserver")
        self._actions, self._next = actions, 0

    def reset(self, seeds: Sequence[int]) -> dict[str, np.ndarray]:
        """Start the episodes; the images, camera name -> uint8 ``[E, height, width, 3]``."""
        obs: Any = self._env.reset(seed=list(seeds))[0]
        return {name: data["rgb"].copy() for name, data in obs["sensor_data"].items()}

    def work(self, steps: int) -> float:
        """Step every environment so many times; the number of environment steps done."""
        for _ in range(steps):
            self._env.step(self._actions[self._next % len(self._actions)])
            self._next += 1
        return float(steps * self._env.num_envs)

    def close(self) -> None:
        """End its processes."""
        self._env.close()


class BareLoop:
    """One process with ManiSkill environments in a loop: A steps that render nothing, then one image, each in turn.

    No reward bookkeeping, no episode rules, no messages: what the simulator itself takes. One thread, and the renderer
    draws in it, so that a loop takes one core and no more.

    Args:
        settings: what is built.
        actions: float32 ``[n, E, d]``, played in turns.
        seeds: one per environment; also which column of the actions it plays.
    """

    def __init__(self, settings: EnvSettings, actions: np.ndarray, seeds: Sequence[int]) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        os.environ.update(threads | {"LP_NUM_THREADS": "0"})  # inherited: libraries read them when they are loaded
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_bare_loop, args=(theirs, settings, actions, seeds), daemon=True)
        self._process.start()

    def wait_ready(self) -> None:
        """Wait until the environment is built."""
        self._connection.recv()

    def reset(self) -> None:
        """Start the episode and the actions anew."""
        self.begin(0, 0)
        self.end()

    def begin(self, chunks: int, act_steps: int) -> None:
        """Start a measurement; :meth:`end` waits for it."""
        self._connection.send((chunks, act_steps))

    def end(self) -> float:
        """The number of environment steps done."""
        return float(self._connection.recv())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _bare_loop(connection: Connection, settings: EnvSettings, actions: np.ndarray, seeds: Sequence[int]) -> None:
    import torch

    from rlft_envs.maniskill.env import renew_physics
    from rlft_envs.maniskill.reading import render_cameras
    from rlft_envs.maniskill.setup import build_base_env

    torch.set_num_threads(1)
    envs = [build_base_env(settings) for _ in seeds]
    tensors = torch.as_tensor(actions)
    gc.freeze()  # as our workers do
    connection.send("ready")
    first = 0
    while True:
        chunks, act_steps = connection.recv()
        if chunks == 0:
            first = 0
            for env, seed in zip(envs, seeds):
                renew_physics(env)
                env.reset(seed=seed)
                render_cameras(env, [CAMERA])
        for _ in range(chunks):
            for env, seed in zip(envs, seeds):
                for j in range(act_steps):
                    env.step(tensors[(first + j) % len(tensors), seed : seed + 1])
                render_cameras(env, [CAMERA])
            first += act_steps
        connection.send(chunks * act_steps * len(envs))
