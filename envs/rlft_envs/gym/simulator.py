"""Gymnasium as a plug-in; loads nothing of it before it is asked to build or to check."""

import importlib
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from rlft import plugins
from rlft.errors import ConfigError
from rlft.types import EnvSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.gym.options import RENDER, check_settings
from rlft_envs.gym.options import Options as GymOptions
from rlft_envs.simulator import Simulator
from rlft_envs.single import SingleEnv
from rlft_envs.task import Task, local_id, task_of

EGL_ADVICE = (
    "MuJoCo renders without a display by EGL (MUJOCO_GL=egl): on Debian and Ubuntu `apt-get install libegl1 libgl1` "
    "(Mesa, on the CPU), or the NVIDIA driver's EGL part; MUJOCO_EGL_DEVICE_ID chooses among several GPUs"
)


class Gymnasium(Simulator):
    """Any environment of the Gymnasium API, on the CPU."""

    packages: tuple[str, ...] = ("gymnasium", "gym-aloha", "mujoco", "numpy")
    Options = GymOptions

    def process_bytes(self, *, renders: bool) -> tuple[int, int] | None:
        """See :meth:`Simulator.process_bytes`; of gym-aloha, and of no other environment."""
        return 330 * 10**6, 15 * 10**6

    def single(self, settings: EnvSettings) -> SingleEnv:
        """See :meth:`Simulator.single`."""
        options, task = self._read(settings)
        from rlft_envs.gym.env import GymnasiumEnv

        try:
            env, control_hz = self._make(settings, options, task)
        except EnvSetupError:
            raise
        except Exception as error:  # whatever a constructor of somebody else's raises
            text = f"{type(error).__name__}: {error}"
            hint = f". {EGL_ADVICE}" if any(word in text for word in ("EGL", "OpenGL", "gladLoadGL")) else ""
            given = f"env.id = {settings.env_id!r} with env.make_kwargs = {dict(settings.make_kwargs)}"
            raise EnvSetupError(f"{given} cannot be made: {text}{hint}") from error
        try:
            return GymnasiumEnv(settings, env, options, control_hz, task.instruction)
        except BaseException:
            env.close()
            raise

    def check(self, settings: EnvSettings) -> None:
        """See :meth:`Simulator.check`."""
        _, task = self._read(settings)
        super().check(settings)
        self._known(settings, task)

    def image_key(self, camera: str) -> str:
        """The key of a camera that the task file gives none."""
        return camera

    def _read(self, settings: EnvSettings) -> tuple[GymOptions, Task]:
        """Options in which every camera has a key, and the task, after both were checked."""
        choose_renderer()
        task = task_of(settings)
        options = GymOptions.of(settings)
        check_settings(settings, options, adapted=task.adapt is not None)
        keys = {c.name: options.images.get(c.name, self.image_key(c.name)) for c in settings.cameras}
        return replace(options, images=keys), task

    def _make(self, settings: EnvSettings, options: GymOptions, task: Task) -> tuple[Any, float | None]:
        """The environment without a time limit, and its own rate, Hz, where it has one."""
        import gymnasium

        self._known(settings, task)
        drawn = RENDER in (options.human_view, *options.images.values())
        given = ({"render_mode": "rgb_array"} if drawn else {}) | dict(settings.make_kwargs)
        # -1: no time limit, which the settings set
        env = gymnasium.make(local_id(settings.env_id), max_episode_steps=-1, disable_env_checker=True, **given)
        return adapted(env, settings, task), env.metadata.get("render_fps")

    def _known(self, settings: EnvSettings, task: Task) -> None:
        """Refuse an id that is not registered, say which are near, and how a package makes its ids known."""
        import gymnasium

        env_id = local_id(settings.env_id)
        try:
            if task.module is not None:
                plugins.imported(task.module, f"env.id = {env_id!r}, whose module")
            gymnasium.spec(env_id)
        except (gymnasium.error.Error, ConfigError) as error:
            text = error.problems[0] if isinstance(error, ConfigError) else f"env.id = {env_id!r}: {error}"
            raise EnvSetupError(
                f"{text} An environment of another package is named as package.module:{env_id}: the module registers it"
            ) from error


def adapted(env: Any, settings: EnvSettings, task: Task) -> Any:
    """The environment as the task's ``adapt`` mends it."""
    adapt = task.hook("adapt")
    return env if adapt is None else adapt(env, settings)


def choose_renderer() -> None:
    """Let MuJoCo render without a display, unless the user chose otherwise; it reads this once, when imported."""
    logging.getLogger("OpenGL.acceleratesupport").setLevel(logging.WARNING)  # says that it is slower than it could be
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("MUJOCO_GL", "egl")


def check_mujoco(settings: EnvSettings) -> None:
    """EnvSetupError where MuJoCo is not installed or cannot render: its own failure comes late and is unclear."""

    def draw() -> None:
        context = importlib.import_module("mujoco").GLContext(8, 8)
        context.make_current()
        context.free()

    choose_renderer()
    try:
        # In a thread of its own: dm_control remembers what is current in its thread, and would draw into nothing.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(draw).result()
    except ModuleNotFoundError as error:
        raise EnvSetupError(f"env.id = {settings.env_id!r} needs {error.name}: pip install 'rlft[gym]'") from error
    except Exception as error:  # PyOpenGL, GLFW and EGL each have their own
        raise EnvSetupError(f"MuJoCo cannot render here ({type(error).__name__}: {error}). {EGL_ADVICE}") from error
