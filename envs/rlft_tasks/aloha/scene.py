"""gym-aloha's scene, rendered when it is looked at. Importing this imports gymnasium."""

from typing import Any

import gymnasium
import numpy as np

from rlft.types import EnvSettings
from rlft_envs.errors import unknown
from rlft_envs.gym.options import Options

FLAT = {"shadow": False, "reflection": False}


class OnDemand(gymnasium.Wrapper):
    """Leaves out the three images of 480 x 640 that upstream renders in every step, which is 99 % of its time.

    ``env.shader`` is ``default`` for upstream's look; ``minimal`` leaves out shadows, reflections and antialiasing,
    which cost seven eighths of an image on the CPU. The settings' cameras, any of the scene's, have their own sizes.
    """

    def __init__(self, env: gymnasium.Env, settings: EnvSettings) -> None:
        super().__init__(env)
        unwrapped: Any = env.unwrapped
        self._scene, self._minimal = unwrapped._env, settings.shader == "minimal"
        model = self._scene.physics.model
        there = [model.id2name(i, "camera") for i in range(model.ncam)]
        images = Options.of(settings).images
        keys = {camera.name: images.get(camera.name, camera.name) for camera in settings.cameras}
        self._sizes = {keys[c.name].rpartition(".")[2]: (c.height, c.width) for c in settings.cameras}
        for name in self._sizes:
            if name not in there:
                raise unknown("env.options.images", name, there)
        if self._minimal:
            model.vis.quality.offsamples = 0
        self._scene.task.get_observation = self._without_images

    def observe_now(self) -> dict[str, Any]:
        """The observation of the present: images as asked for, and the state that upstream has but does not show."""
        physics, task = self._scene.physics, self._scene.task
        flags = FLAT if self._minimal else None
        return {
            "pixels": {
                name: physics.render(height=height, width=width, camera_id=name, render_flag_overrides=flags)
                for name, (height, width) in self._sizes.items()
            },
            "agent_pos": task.get_qpos(physics),
            "agent_vel": task.get_qvel(physics),
            "objects": task.get_env_state(physics),
        }

    def _without_images(self, physics: Any) -> dict[str, Any]:
        """What upstream makes its observation of; it copies the image."""
        return {"qpos": self._scene.task.get_qpos(physics), "images": {"top": np.zeros((1, 1, 3), np.uint8)}}
