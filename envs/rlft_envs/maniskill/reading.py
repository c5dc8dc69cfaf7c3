"""What is read from a ManiSkill scene: state terms, the simulator's state, cameras, metrics. Imports ManiSkill."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mani_skill.agents.base_agent import BaseAgent
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils.structs import Link

from rlft_envs.errors import EnvSetupError, check_known

NO_METRICS = ("success", "fail", "elapsed_steps", "reconfigure")


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
    """The link that a robot's tool poses are about: its ``tcp``, or WidowX's ``ee_gripper_link``."""
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
    """The policy's state vector, float32 ``[E, S]``: the terms side by side; EnvSetupError where one is not there."""
    check_known("env.state_terms", terms, STATE_TERMS)
    return torch.cat([STATE_TERMS[term](env).float() for term in terms], dim=1)


def read_privileged(env: BaseEnv) -> torch.Tensor:
    """The simulator's state, float32 ``[E, P]``: every actor that can move, every articulation, controller targets.

    In the order in which the task builds its scene, which is fixed. Actors give pose and velocities (13), articulations
    root pose, root velocities, joint positions and velocities.
    """
    return env.get_state().float()


def render_cameras(env: BaseEnv, names: list[str]) -> dict[str, torch.Tensor]:
    """Render the named cameras once: uint8 ``[E, height, width, 3]`` each.

    Objects that the task hides from the robot (goal markers) are hidden. A task that composes its images (a real
    photograph behind the simulated robot) does so, by ``compose_image(camera, rgb uint8 [E, h, w, 3], segmentation
    int [E, h, w])``. Without names nothing is rendered. The images are copies: a
    batched simulation hands out the renderer's own buffer, which the next capture overwrites.
    """
    if not names:
        return {}
    for hidden in env._hidden_objects:
        hidden.hide_visual()
    env.scene.update_render(update_sensors=True, update_human_render_cameras=False)
    images, compose = {}, getattr(env, "compose_image", None)
    for name in names:
        camera = env.scene.sensors[name]
        camera.capture()
        seen = camera.get_obs(rgb=True, depth=False, position=False, segmentation=compose is not None)
        image = seen["rgb"] if compose is None else compose(name, seen["rgb"], seen["segmentation"][..., 0])
        images[name] = image.clone(memory_format=torch.contiguous_format)
    if image.is_cuda:
        torch.cuda.synchronize(image.device)  # as upstream, so that physics does not queue behind the images
    return images


def render_human_view(env: BaseEnv) -> torch.Tensor:
    """The task's own render camera, with goal markers shown: uint8 ``[E, height, width, 3]``.

    A task that composes its images shows the first camera's instead. EnvSetupError where nothing renders.
    """
    if hasattr(env, "compose_image") and env.scene.sensors:
        name = next(iter(env.scene.sensors))
        return render_cameras(env, [name])[name]
    image = env.render_rgb_array() if env.scene.can_render() else None
    if image is None:
        raise EnvSetupError("no image can be recorded without a renderer; set sim.render_backend=cpu (or gpu)")
    return image


def task_metrics(info: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The numbers that the task reports beside success, float32 ``[E]`` each."""
    numbers = {name: x for name, x in info.items() if isinstance(x, torch.Tensor) and x.ndim == 1}
    return {name: numbers[name].float() for name in numbers if name not in NO_METRICS}
