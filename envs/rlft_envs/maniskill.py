"""One ManiSkill environment with CPU physics. Imported lazily; importing it imports ManiSkill and torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sapien
import torch
from mani_skill.agents.base_agent import BaseAgent
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils import common
from mani_skill.utils.structs import Link

from rlft.types import EnvSettings, EnvSpec
from rlft_envs.errors import EnvSetupError, unknown
from rlft_envs.maniskill_setup import build_base_env, instructions
from rlft_envs.rewards import needs_dense
from rlft_envs.single import ObservationRow, Outcome, SingleEnv


def _goal_pos(env: BaseEnv) -> torch.Tensor:
    for name in ("goal_site", "goal_region"):
        if name in env.scene.actors:
            return env.scene.actors[name].pose.p
    raise EnvSetupError(f"env.state_terms: {type(env).__name__} has no goal_site or goal_region for goal_pos")


def _gripper(env: BaseEnv) -> torch.Tensor:
    fingers = [j.active_index[0] for j in env.agent.robot.active_joints if "finger" in j.name or "gripper" in j.name]
    if not fingers:
        raise EnvSetupError(f"env.state_terms: the robot {env.agent.uid} has no finger joint for gripper")
    return env.agent.robot.get_qpos()[:, fingers].mean(dim=1, keepdim=True)


def tool_link(agent: BaseAgent) -> Link:
    """The link that a robot's tool poses are about: its ``tcp``, or WidowX's ``ee_gripper_link``.

    Raises:
        EnvSetupError: the robot has neither.
    """
    link = getattr(agent, "tcp", None) or agent.robot.links_map.get("ee_gripper_link")
    if link is None:
        raise EnvSetupError(f"the robot {agent.uid} has no tool link: neither tcp nor ee_gripper_link")
    return link


STATE_TERMS: Mapping[str, Callable[[BaseEnv], torch.Tensor]] = {
    "tcp_pos": lambda env: tool_link(env.agent).pose.p,
    "tcp_pose": lambda env: tool_link(env.agent).pose.raw_pose,
    "qpos": lambda env: env.agent.robot.get_qpos(),
    "qvel": lambda env: env.agent.robot.get_qvel(),
    "gripper": _gripper,
    "goal_pos": _goal_pos,
}
"""State term -> its value, float ``[E, n]``: tool position (3, metres), tool pose (7, metres and a wxyz quaternion),
joint positions (rad or metres), joint velocities, mean finger opening (1, metres), and the goal's position (3, metres;
for tasks that hide it from the cameras)."""


def read_state(env: BaseEnv, terms: tuple[str, ...]) -> torch.Tensor:
    """The policy's state vector, float32 ``[E, S]``: the terms side by side, in order.

    Raises:
        EnvSetupError: a term does not exist, or not for this robot or task.
    """
    for term in terms:
        if term not in STATE_TERMS:
            raise unknown("env.state_terms", term, STATE_TERMS)
    return torch.cat([STATE_TERMS[term](env).float() for term in terms], dim=1)


def read_privileged(env: BaseEnv) -> torch.Tensor:
    """The simulator's state, float32 ``[E, P]``: every actor that can move, every articulation, controller targets.

    The order is the order in which the task builds its scene, which is fixed. Actors give pose and velocities (13),
    articulations root pose, root velocities, joint positions and velocities.
    """
    return env.get_state().float()


def render_cameras(env: BaseEnv, names: list[str]) -> dict[str, torch.Tensor]:
    """Render the named cameras once: uint8 ``[E, height, width, 3]`` each.

    Objects that the task hides from the robot (goal markers) are hidden. A task that composes its pictures (a real
    photograph behind the simulated robot) does so. Without names nothing is rendered.
    """
    if not names:
        return {}
    for hidden in env._hidden_objects:
        hidden.hide_visual()
    env.scene.update_render(update_sensors=True, update_human_render_cameras=False)
    images = {}
    compose = composer(env)
    for name in names:
        camera = env.scene.sensors[name]
        camera.capture()
        seen = camera.get_obs(rgb=True, depth=False, position=False, segmentation=compose is not None)
        images[name] = seen["rgb"] if compose is None else compose(name, seen["rgb"], seen["segmentation"][..., 0])
    return images


def composer(env: BaseEnv) -> Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor] | None:
    """How a task makes its pictures from what is rendered; None where it shows them as they are.

    ``compose_picture(camera, rgb uint8 [E, h, w, 3], segmentation int [E, h, w]) -> uint8 [E, h, w, 3]``.
    """
    return getattr(env, "compose_picture", None)


def render_human_view(env: BaseEnv) -> torch.Tensor:
    """The task's own render camera, with goal markers shown: uint8 ``[E, height, width, 3]``.

    A task that composes its pictures shows the first camera's instead.

    Raises:
        EnvSetupError: the environment was built without a renderer.
    """
    if composer(env) is not None and env.scene.sensors:
        name = next(iter(env.scene.sensors))
        return render_cameras(env, [name])[name]
    image = env.render_rgb_array() if env.scene.can_render() else None
    if image is None:
        raise EnvSetupError("no picture can be recorded without a renderer; set sim.render_backend=cpu (or gpu)")
    return image


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


def task_metrics(info: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The numbers that the task reports beside success, float32 ``[E]`` each."""
    skip = ("success", "fail", "elapsed_steps", "reconfigure")
    return {
        name: value.float()
        for name, value in info.items()
        if name not in skip and isinstance(value, torch.Tensor) and value.ndim == 1
    }


def describe(env: BaseEnv, settings: EnvSettings) -> EnvSpec:
    """The facts about a built environment."""
    space = env.single_action_space
    return EnvSpec(
        env_id=settings.env_id,
        num_envs=settings.num_envs,
        action_low=tuple(float(x) for x in space.low),
        action_high=tuple(float(x) for x in space.high),
        state_dim=read_state(env, settings.state_terms).shape[1],
        cameras=settings.cameras,
        control_mode=env.control_mode,
        control_hz=float(env.control_freq),
        max_episode_steps=settings.max_episode_steps,
        privileged_dim=read_privileged(env).shape[1] if settings.privileged else 0,
        num_episode_ids=getattr(env, "num_episode_ids", 0),
    )


def episode_options(episode_id: int | None) -> dict[str, torch.Tensor]:
    """The reset options that ask for a numbered configuration; none where the seed decides."""
    return {} if episode_id is None else {"episode_id": torch.tensor([episode_id])}


class ManiSkillEnv(SingleEnv):
    """One environment with CPU physics: inner steps do not render, :meth:`observe` does.

    Attributes:
        env: the simulator's environment (a gymnasium environment without wrappers).
    """

    def __init__(self, settings: EnvSettings) -> None:
        super().__init__(settings)
        self.env = build_base_env(settings)
        self._spec = describe(self.env, settings)

    @property
    def unwrapped(self) -> BaseEnv:
        """The simulator's environment itself."""
        return self.env

    @property
    def spec(self) -> EnvSpec:
        """The facts about this environment."""
        return self._spec

    @property
    def instruction(self) -> str:
        """The running episode's language instruction."""
        return instructions(self.env, self.settings)[0]

    def observe(self) -> ObservationRow:
        """Render the cameras and read the state."""
        images = render_cameras(self.env, [camera.name for camera in self.settings.cameras])
        return ObservationRow(
            images={name: common.to_numpy(image[0]) for name, image in images.items()},
            state=common.to_numpy(read_state(self.env, self.settings.state_terms)[0]),
            privileged=common.to_numpy(read_privileged(self.env)[0]) if self.settings.privileged else None,
        )

    def human_view(self) -> np.ndarray:
        """A picture by the task's render camera, uint8 ``[256, 256, 3]``."""
        return common.to_numpy(render_human_view(self.env)[0])

    def close(self) -> None:
        """Free the scene."""
        self.env.close()

    def _start_episode(self, seed: int, episode_id: int | None) -> float:
        renew_physics(self.env)
        _, info = self.env.reset(seed=seed, options=episode_options(episode_id))
        if not needs_dense(self.settings.reward):
            return 0.0
        rest = torch.zeros(1, len(self._spec.action_low))
        return float(self.env.get_reward(obs={}, action=rest, info=info))

    def _advance(self, action: np.ndarray) -> Outcome:
        _, reward, _, _, info = self.env.step(torch.as_tensor(action, dtype=torch.float32)[None])
        return Outcome(
            dense=float(reward),
            success=bool(info["success"]) if "success" in info else False,
            fail=bool(info["fail"]) if "fail" in info else False,
            metrics={name: float(value) for name, value in task_metrics(info).items()},
        )
