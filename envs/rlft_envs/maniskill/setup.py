"""Builds a ManiSkill environment from settings, and refuses early, in words, what cannot be built.

The task class is instantiated directly, without gymnasium's registry: time limits, order checks and asset prompts
of the registry would only stand between us and the simulator. Imported lazily; importing it imports ManiSkill.
"""

import importlib
import os
from collections.abc import Mapping
from typing import Any

from rlft.types import EnvSettings
from rlft_envs.errors import EnvSetupError, check_known, unknown
from rlft_envs.task import local_id, task_of

os.environ.setdefault("MS_SKIP_ASSET_DOWNLOAD_PROMPT", "1")  # read when assets are missing: never ask on stdin

import numpy as np
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.sensors.camera import parse_camera_configs
from mani_skill.utils import assets, sapien_utils
from mani_skill.utils.registration import REGISTERED_ENVS

import mani_skill.envs  # isort: skip  # noqa: F401  registers the tasks
from rlft_envs.maniskill.coarse_visuals import coarsen_robot
from rlft_envs.maniskill.devices import check_vulkan, physics_device, render_device
from rlft_envs.maniskill.robots import Robot, with_robot
from rlft_envs.maniskill.row_draws import drawing_by_row
from rlft_envs.maniskill.variations import Variation, varied

HUMAN_VIEW_SIZE = 256


def build_base_env(settings: EnvSettings) -> BaseEnv:
    """Build the task, without wrappers, in observation mode "none": nothing is rendered unless asked for.

    The settings' ``make_kwargs`` may hold further constructor arguments, ``robot`` (:class:`.robots.Robot`),
    ``variation`` (:class:`.variations.Variation`) and ``visual_cell`` (:func:`.coarse_visuals.coarsen_robot`).

    Raises:
        EnvSetupError: unknown task, control mode, camera or argument; missing assets; no renderer; no CUDA device.
    """
    check_vulkan()
    described, task = task_of(settings), task_class(settings)
    kwargs = {**REGISTERED_ENVS[local_id(settings.env_id)].default_kwargs, **settings.make_kwargs}
    adapt = described.hook("adapt")
    if adapt is not None:
        task, more = adapt(task, settings)
        kwargs |= more
    task, uid, robot = _keeping_views(task), settings.robot, Robot.parse(kwargs.pop("robot", None))
    if robot is not None:
        if uid is None:
            raise EnvSetupError("env.make_kwargs.robot describes a robot; give it a name by env.robot")
        task, uid = with_robot(task, robot, uid)
    variation, visual_cell = Variation.parse(kwargs.pop("variation", None)), kwargs.pop("visual_cell", None)
    if variation is not None:
        task = varied(task, settings.env_id, described, variation)
    if settings.sim_backend == "gpu":
        _refuse_on_gpu(kwargs)
        task = drawing_by_row(task)  # outermost, so that a variation's draws are by row too
    renderer, view = render_device(settings), {"width": HUMAN_VIEW_SIZE, "height": HUMAN_VIEW_SIZE}
    kwargs |= {
        "num_envs": settings.num_envs if settings.sim_backend == "gpu" else 1,
        "obs_mode": "none",
        "reward_mode": "normalized_dense" if settings.reward.mode != "sparse" else "none",
        "control_mode": settings.control_mode,
        "render_mode": "rgb_array" if renderer != "none" else None,
        "sim_backend": physics_device(settings),
        "render_backend": renderer,
        "sensor_configs": _sensor_configs(settings),
        "human_render_camera_configs": {**view, "shader_pack": settings.shader},
    }
    if uid is not None:
        kwargs["robot_uids"] = local_id(uid)
    try:
        env = task(**kwargs)
    except (RuntimeError, FileNotFoundError, TypeError, AttributeError, KeyError, AssertionError) as error:
        raise EnvSetupError(_explain(settings, error)) from error
    check_known("env.cameras name", [camera.name for camera in settings.cameras], env.scene.sensors)
    for camera in settings.cameras:
        if camera.eye is not None and env.scene.sensors[camera.name].entity is not None:
            raise EnvSetupError(f"camera {camera.name!r} is mounted on the robot; it takes no eye and target")
    instructions(env, settings)  # there has to be one
    if visual_cell is not None:
        coarsen_robot(env, visual_cell)
    return env


def _keeping_views(task: type) -> type:
    """Subclass a task so that a camera given by an intrinsic matrix sees the same at another resolution.

    ManiSkill takes the matrix as it is, in pixels: at a quarter of the resolution such a camera would see a quarter of
    the image. A change of proportions squeezes the image, as a resize of the full one would.
    """

    class KeepsViews(task):
        _custom_sensor_configs: dict[str, Any] | None

        def _setup_sensors(self, options: dict) -> None:
            natives = parse_camera_configs(self._default_sensor_configs)
            natives = {**natives, **parse_camera_configs(self.agent._sensor_configs)}
            custom = self._custom_sensor_configs = dict(self._custom_sensor_configs or {})
            for name, native in natives.items():
                changed = custom.get(name)
                if native.intrinsic is not None and changed is not None and "intrinsic" not in changed:
                    across = changed.get("width", native.width) / native.width
                    down = changed.get("height", native.height) / native.height
                    matrix = np.diag([across, down, 1.0]) @ np.asarray(native.intrinsic, dtype=np.float64)
                    custom[name] = {**changed, "intrinsic": matrix}
            super()._setup_sensors(options)

    KeepsViews.__name__ = KeepsViews.__qualname__ = task.__name__
    return KeepsViews


def instructions(env: Any, settings: EnvSettings) -> list[str]:
    """Every environment's instruction: the setting, the task's own, or our default; EnvSetupError if none."""
    own, text = getattr(env, "get_language_instruction", None), settings.instruction
    if text is None and own is not None:
        texts = list(own())
    else:
        texts = [task_of(settings).instruction if text is None else text] * settings.num_envs
    if not all(text.strip() for text in texts):
        raise EnvSetupError(f"env.instruction is empty, and {settings.env_id} has no default; set env.instruction")
    return texts


def task_class(settings: EnvSettings) -> type[BaseEnv]:
    """The class of ``env.id``; EnvSetupError where it is unknown, or its assets are missing."""
    task, env_id = task_of(settings), local_id(settings.env_id)
    for module in (task.module, (settings.robot or "").rpartition(":")[0]):  # who registers a task or a robot
        if module:
            importlib.import_module(module)
    if env_id not in REGISTERED_ENVS:
        raise unknown("env.id", settings.env_id, REGISTERED_ENVS)
    needed: list[str] = []
    for asset in REGISTERED_ENVS[env_id].asset_download_ids or []:
        is_group = asset in assets.DATA_GROUPS
        needed += assets.expand_data_group_into_individual_data_source_ids(asset) if is_group else [asset]
    missing = sorted(source for source in needed if not assets.is_data_source_downloaded(source))
    if missing:
        where = f"{assets.DATA_SOURCES[missing[0]].output_dir} (assets.root, or MS_ASSET_DIR, moves it)"
        wrong = f"{env_id} needs the assets {', '.join(missing)}, which are not under {where}"
        raise EnvSetupError(f"{wrong}; download them with: {_download(settings)}")
    return REGISTERED_ENVS[env_id].cls


def _download(settings: EnvSettings) -> str:
    """The command that fetches a task's assets: its own, else ManiSkill's."""
    own = task_of(settings).hook("download")
    return own(settings) if own is not None else f"python -m mani_skill.utils.download_asset {settings.env_id}"


def _refuse_on_gpu(kwargs: Mapping[str, Any]) -> None:
    """What upstream takes for a batched simulation, and what breaks its seeds or its partial resets."""
    for name, why in (
        ("enhanced_determinism", "until environment 0 is reset, every partial reset would draw the same numbers"),
        ("reconfiguration_freq", "a reset of some environments cannot rebuild the scene of all"),
    ):
        if kwargs.get(name):
            given = f"env.make_kwargs.{name} = {kwargs[name]!r}"
            raise EnvSetupError(f"{given}: with GPU physics {why}; leave it out, or use sim.backend=cpu")


def _sensor_configs(settings: EnvSettings) -> dict[str, Any]:
    configs: dict[str, Any] = {"shader_pack": settings.shader}
    for camera in settings.cameras:
        config = configs[camera.name] = {"height": camera.height, "width": camera.width}
        if camera.fov is not None:
            config |= {"fov": camera.fov, "intrinsic": None}
        if (camera.eye is None) != (camera.target is None):
            raise EnvSetupError(f"camera {camera.name!r}: eye and target go together; one of them is missing")
        if camera.eye is not None:
            config["pose"] = sapien_utils.look_at(camera.eye, camera.target)
    return configs


def _explain(settings: EnvSettings, error: Exception) -> str:
    """Turn ManiSkill's and SAPIEN's own failures into what to change."""
    text = f"{type(error).__name__}: {error}"
    if "rendering device" in text or "vulkan" in text.lower():
        remedy = "SAPIEN found no Vulkan device that can render; Mesa before 24 cannot (see README, set-up)"
    elif "find device" in text:
        remedy = f"sim.device={settings.sim_device}, sim.render_backend={settings.render_backend}: no such device here"
    elif isinstance(error, FileNotFoundError):
        remedy = f"download its assets with: {_download(settings)}"
    elif "is not a valid attribute of CameraConfig" in text:
        remedy = f"env.cameras names a camera that the task lacks, among {[c.name for c in settings.cameras]}"
    else:
        remedy = f"check env.control_mode = {settings.control_mode!r}, env.robot = {settings.robot!r}, env.make_kwargs"
    return f"{settings.env_id} could not be built: {text}\n{remedy}"
