"""Environments for the GPU benchmark's checks of simulation, and what is read from them.

Physics runs on the GPU where SAPIEN's library for it is on this machine (it is downloaded at first use, which a machine
without a network cannot do), else on the CPU with rendering on the GPU. ``--dry`` takes the toy simulator. The CPU's
side of a comparison runs in a worker process: SAPIEN refuses GPU physics in a process that has used CPU physics.
"""

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_env import ACT_STEPS, Scale
from rlft.config.load import changed, load
from rlft.run.assembly.envs import env_settings
from rlft.types import VecEnv
from rlft_envs.simulator import make_vec_env

TARGET_MODE = "pd_ee_target_delta_pose"  # a controller with a moving target, which upstream's partial reset loses


class Sim:
    """Environments for the checks, and why there are none, or others than asked for.

    Args:
        scale: sizes.
    """

    def __init__(self, scale: Scale) -> None:
        self.scale = scale

    @cached_property
    def missing(self) -> str:
        """Why nothing can be simulated; empty where it can."""
        absent = [name for name in ("mani_skill", "sapien") if importlib.util.find_spec(name) is None]
        return "" if self.scale.dry or not absent else f"no simulator here: {', '.join(absent)} not installed"

    @cached_property
    def no_gpu_physics(self) -> str:
        """Why physics runs on the CPU; empty where it runs on the GPU."""
        if self.scale.dry:
            return "dry run: the toy simulator, on the CPU"
        if not torch.cuda.is_available():
            return "no CUDA device"
        from sapien import physx

        library = Path.home() / ".sapien" / "physx" / physx.version() / "libPhysXGpu_64.so"
        return (
            "" if library.is_file() else f"SAPIEN's GPU physics library is not at ~/{library.relative_to(Path.home())}"
        )

    @property
    def backend(self) -> str:
        """``gpu`` or ``cpu``: where physics runs."""
        return "cpu" if self.no_gpu_physics else "gpu"

    def open(self, num_envs: int, task: str = "push_cube", *, oracle: bool = False, **changes: Any) -> VecEnv:
        """Environments, E of them, in this process; on CPU physics one process holds them all, or one worker each.

        Args:
            num_envs: E.
            task: a file of configs/task.
            oracle: CPU physics in any case.
            changes: settings' sections and names joined by two underscores, as ``env__control_mode``.
        """
        on_gpu = self.backend == "gpu" and not oracle
        overrides = ["wandb=null", f"task={'toy' if self.scale.dry else task}", "critic.inputs=both"]
        device, backend = (self.scale.device, "gpu") if on_gpu else ("cpu", "cpu")
        overrides += [f"env.num_envs={num_envs}", f"sim.device={device}", f"sim.backend={backend}"]
        overrides += ["train.batch_size=1"]  # nothing is trained here
        if not self.scale.dry:
            overrides += ["policy=pi0", "sim.num_workers=null" if num_envs > 1 else "sim.num_workers=1"]
        cfg = load("train_rl", overrides)
        if not self.scale.dry and task == "push_cube":
            cfg = changed(cfg, {"env.control_mode": TARGET_MODE, "env.state_terms": ["qpos"]})
        cfg = changed(cfg, {name.replace("__", "."): value for name, value in changes.items()})
        return make_vec_env(env_settings(cfg, num_envs))

    @cached_property
    def many(self) -> VecEnv:
        """The batch that most checks look at, its first episodes begun."""
        env = self.open(self.scale.envs[0] if self.backend == "gpu" or self.scale.dry else 16)
        env.reset(range(env.spec.num_envs), range(env.spec.num_envs))
        return env


def plain(value: Any) -> np.ndarray:
    """Numpy numbers, float64, copied from wherever they are."""
    return np.array(value.detach().cpu() if isinstance(value, torch.Tensor) else value, dtype=np.float64)


def largest(a: Any, b: Any) -> float:
    """The largest difference."""
    return float(np.abs(plain(a) - plain(b)).max(initial=0.0))


def actions(env: VecEnv, seed: int) -> np.ndarray:
    """A random chunk within the controller's bounds, float32 ``[E, A, d]``."""
    low, high = (np.asarray(bound, np.float32) for bound in (env.spec.action_low, env.spec.action_high))
    drawn = np.random.default_rng(seed).random((env.spec.num_envs, ACT_STEPS, env.spec.act_dim), dtype=np.float32)
    return low + drawn * (high - low)


def base(env: VecEnv) -> Any:
    """ManiSkill's own environment behind GPU physics; None where there is none in this process."""
    return getattr(env, "_env", None)


def targets(env: VecEnv) -> np.ndarray | None:
    """Every controller's targets, flat ``[E, n]``; None where they cannot be read."""
    if base(env) is None:
        return None
    found: list[np.ndarray] = []

    def collect(tree: Any) -> None:
        for branch in tree.values() if isinstance(tree, dict) else ():
            if isinstance(branch, torch.Tensor):
                found.append(plain(branch).reshape(len(branch), -1))
            collect(branch)

    collect(base(env).agent.get_controller_state())
    return np.concatenate(found, axis=1)
