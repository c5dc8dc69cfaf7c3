"""Robots and control modes of one's own, as data: ``make_kwargs: {robot: {...}}``. Imports ManiSkill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import sapien
import torch
from mani_skill.agents import controllers
from mani_skill.agents.base_agent import BaseAgent, Keyframe
from mani_skill.agents.registration import REGISTERED_AGENTS, AgentSpec
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils.structs import Pose

from rlft_envs.checks import parsed
from rlft_envs.errors import EnvSetupError, check_known

SETTING = "env.make_kwargs.robot"
CONTROLLERS: Mapping[str, type] = {
    "joint_pos": controllers.PDJointPosControllerConfig,
    "joint_vel": controllers.PDJointVelControllerConfig,
    "joint_mimic": controllers.PDJointPosMimicControllerConfig,
    "ee_pos": controllers.PDEEPosControllerConfig,
    "ee_pose": controllers.PDEEPoseControllerConfig,
}
"""What ``control`` may be, in a part of a control mode; the other keys are the fields of ManiSkill's own class."""


@dataclass(frozen=True)
class Robot:
    """A robot that the settings describe."""

    # a registered robot that it is, but for what follows: its place in the tasks, sensors and methods; None: a new one,
    # which needs `urdf`, `rest` and `tool_link`
    like: str | None = None
    urdf: str | None = None  # another description, a path
    # joint positions at the start of an episode, rad or metres, one per active joint; None: as the task says
    rest: tuple[float, ...] | None = None
    position: tuple[float, ...] | None = None  # of its base, metres; None: as the task says
    tool_link: str | None = None  # the link that tool poses are about
    # name -> part -> the part's controller: either `{from: mode.part, ...}`, one of the robot's own with other fields,
    # or `{control: joint_pos, joint_names: [...], ...}`
    control_modes: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    @classmethod
    def parse(cls, values: Mapping[str, Any] | None) -> "Robot | None":
        """Check what the settings say (EnvSetupError where they are wrong); None where they say nothing."""
        if not values:
            return None
        robot: Robot = parsed(cls, values, SETTING)
        check_known(f"{SETTING}.like", [] if robot.like is None else [robot.like], REGISTERED_AGENTS)
        if robot.like is None and (robot.urdf is None or robot.rest is None or robot.tool_link is None):
            raise EnvSetupError(f"{SETTING}: without like, urdf, rest and tool_link are needed")
        if robot.urdf is not None and not Path(robot.urdf).is_file():
            raise EnvSetupError(f"{SETTING}.urdf = {robot.urdf!r}: no such file")
        for mode, parts in robot.control_modes.items():
            for part, controller in parts.items():
                if ("from" in controller) == ("control" in controller):
                    raise EnvSetupError(f"{SETTING}.control_modes.{mode}.{part}: give from or control, one of them")
        return robot

    def agent(self, uid: str) -> type[BaseAgent]:
        """The ManiSkill class of this robot."""
        described, base = self, BaseAgent if self.like is None else REGISTERED_AGENTS[self.like].agent_cls

        class Described(base):  # type: ignore[misc, valid-type]
            @property
            def _controller_configs(self) -> dict[str, Any]:
                own, made = super()._controller_configs, {}
                for mode, parts in described.control_modes.items():
                    where = f"{SETTING}.control_modes.{mode}"
                    made[mode] = {part: _controller(own, f"{where}.{part}", values) for part, values in parts.items()}
                return own | made

            def _after_init(self) -> None:
                super()._after_init()
                if described.tool_link is not None:
                    check_known(f"{SETTING}.tool_link", [described.tool_link], self.robot.links_map)
                    self.tcp = self.robot.links_map[described.tool_link]

        Described.uid, Described.__name__ = uid, f"Robot_{uid}"
        if self.urdf is not None:
            Described.urdf_path = self.urdf
        if self.rest is not None and not Described.keyframes:
            base_pose = sapien.Pose(list(self.position or (0.0,) * 3))
            Described.keyframes = {"rest": Keyframe(pose=base_pose, qpos=self.rest)}
        return Described


def with_robot(task: type[BaseEnv], robot: Robot, uid: str) -> tuple[type[BaseEnv], str]:
    """A task in which the described robot, ``env.robot``, acts, and the ``robot_uids`` to make it with.

    Tasks ask by that name where a robot stands.
    """
    name, agent = robot.like or uid, robot.agent(uid)

    class WithRobot(task):
        def _load_agent(self, *args: Any, **kwargs: Any) -> None:
            before = REGISTERED_AGENTS.get(name)  # upstream looks the class up by the name that tasks compare with
            REGISTERED_AGENTS[name] = AgentSpec(agent, [] if before is None else before.asset_download_ids)
            try:
                super()._load_agent(*args, **kwargs)
            finally:
                del REGISTERED_AGENTS[name]
                if before is not None:
                    REGISTERED_AGENTS[name] = before

        def _initialize_episode(self, env_idx: torch.Tensor, options: dict) -> None:
            super()._initialize_episode(env_idx, options)
            body = self.agent.robot
            # While an episode starts, setting a state reaches the environments under reset alone.
            if robot.rest is not None:
                if len(robot.rest) != body.max_dof:
                    names = ", ".join(joint.name for joint in body.active_joints)
                    has = f"{len(robot.rest)} numbers; {uid} has {body.max_dof} joints: {names}"
                    raise EnvSetupError(f"{SETTING}.rest has {has}")
                body.set_qpos(_rows(robot.rest, env_idx))
            if robot.position is not None:
                body.set_pose(Pose.create_from_pq(_rows(robot.position, env_idx)))

    WithRobot.__name__ = WithRobot.__qualname__ = task.__name__
    return WithRobot, name


def _rows(numbers: Sequence[float], env_idx: torch.Tensor) -> torch.Tensor:
    return torch.tensor(numbers, device=env_idx.device).repeat(len(env_idx), 1)


def _controller(own: Mapping[str, Any], where: str, values: Mapping[str, Any]) -> Any:
    """ManiSkill's configuration of one part's controller."""
    changes = dict(values)
    if "control" in changes:
        kind = changes.pop("control")
        check_known(f"{where}.control", [kind], CONTROLLERS)
        made, before = CONTROLLERS[kind], None
    else:
        source = str(changes.pop("from"))
        groups = {mode: parts for mode, parts in own.items() if isinstance(parts, dict)}
        known = {f"{mode}.{part}": config for mode, parts in groups.items() for part, config in parts.items()}
        check_known(f"{where}.from", [source], known)
        made, before = type(known[source]), known[source]
    check_known(where, changes, [entry.name for entry in fields(made)])
    try:
        return made(**changes) if before is None else replace(before, **changes)
    except TypeError as error:
        raise EnvSetupError(f"{where}: {error}") from error
