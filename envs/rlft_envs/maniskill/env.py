"""One ManiSkill environment with CPU physics. Imported lazily; importing it imports ManiSkill and torch."""

from typing import Any

import numpy as np
import sapien
import torch
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils import common

from rlft.types import EnvSettings, EnvSpec
from rlft_envs.maniskill.control import ControlStep
from rlft_envs.maniskill.reading import read_privileged, read_state, render_cameras, render_human_view, task_metrics
from rlft_envs.maniskill.setup import build_base_env, instructions
from rlft_envs.single import ObservationRow, Outcome, SingleEnv, spec_of


def describe(env: BaseEnv, settings: EnvSettings) -> EnvSpec:
    """The facts about a built environment."""
    space, state_dim = env.single_action_space, read_state(env, settings.state_terms).shape[1]
    privileged_dim = read_privileged(env).shape[1] if settings.privileged else 0
    sizes = state_dim, env.control_freq, privileged_dim, getattr(env, "num_episode_ids", 0)
    return spec_of(settings, (space.low, space.high), *sizes)


def renew_physics(env: BaseEnv) -> None:
    """Move everything into a new, empty physics scene, so that the past cannot reach the next episode (CPU only).

    PhysX keeps its contact pairs in pools whose order depends on every contact there ever was, and the order decides in
    which sequence the solver sums: after a reset, the same episode differs in the last bits from the moment the robot
    touches something, and visibly soon after. A new scene with the same bodies in the same order costs a millisecond;
    rebuilding the task would cost 200.
    """
    old = env.scene.sub_scenes[0]
    env._set_scene_config()  # these defaults are global to the process, and another task may have changed them
    physics = sapien.physx.PhysxCpuSystem()
    physics.timestep = env.scene.px.timestep
    new = sapien.Scene([physics, old.render_system] if env.scene.can_render() else [physics])
    entities = list(old.entities)
    for entity in entities:
        entity.remove_from_scene()
    for entity in entities:
        new.add_entity(entity)
    env.scene.px, env.scene.sub_scenes[0] = physics, new


class ManiSkillEnv(SingleEnv):
    """One environment with CPU physics: inner steps do not render, :meth:`observe` does."""

    def __init__(self, settings: EnvSettings) -> None:
        super().__init__(settings)
        self.unwrapped = build_base_env(settings)  # a gymnasium environment without wrappers
        self.spec = describe(self.unwrapped, settings)
        self._control = ControlStep(self.unwrapped)
        self._action = torch.zeros(1, len(self.spec.action_low))
        self._info: dict[str, Any] = {}

    @property
    def instruction(self) -> str:
        """The running episode's language instruction."""
        return instructions(self.unwrapped, self.settings)[0]

    def observe(self) -> ObservationRow:
        """Render the cameras and read the state."""
        images = render_cameras(self.unwrapped, [camera.name for camera in self.settings.cameras])
        seen = {name: common.to_numpy(image[0]) for name, image in images.items()}
        state = common.to_numpy(read_state(self.unwrapped, self.settings.state_terms)[0])
        privileged = common.to_numpy(read_privileged(self.unwrapped)[0]) if self.settings.privileged else None
        return ObservationRow(seen, state, privileged)

    def human_view(self) -> np.ndarray:
        """An image by the task's render camera, uint8 ``[256, 256, 3]``."""
        return common.to_numpy(render_human_view(self.unwrapped)[0])

    def close(self) -> None:
        """Free the scene."""
        self.unwrapped.close()

    def _start_episode(self, seed: int, configuration_id: int | None) -> None:
        renew_physics(self.unwrapped)
        options = {} if configuration_id is None else {"episode_id": torch.tensor([configuration_id])}
        _, self._info = self.unwrapped.reset(seed=seed, options=options)
        self._action = torch.zeros(1, len(self.spec.action_low))

    def _advance(self, action: np.ndarray) -> Outcome:
        """What ``BaseEnv.step`` does, without its observation and reward; see :class:`ControlStep`."""
        action = np.asarray(action, dtype=np.float32)
        self._control(action)
        self._action = torch.from_numpy(action[None])
        self.unwrapped._elapsed_steps += 1
        self._info = info = self.unwrapped.get_info()
        success, fail = (bool(info.get(name, False)) for name in ("success", "fail"))
        metrics = {name: float(value) for name, value in task_metrics(info).items()}
        return Outcome(success, fail, metrics=metrics)

    def _dense_reward(self) -> float:
        return float(self.unwrapped.get_reward(obs={}, action=self._action, info=self._info))
