"""One control step on the CPU with the controllers' arithmetic in numpy. Importing it imports ManiSkill.

ManiSkill's controllers are written for batches on a GPU. For one row on the CPU their tensor calls take five times as
long as the physics that they command. Here is the same arithmetic, in the same order and precision (float32), so that
the joints are driven to the very same targets. Where a result's last bit depends on a torch kernel (sine, cosine, root,
3 x 3 product, norm), that kernel is called: inverse kinematics stops at a threshold, so a last bit could become a
whole iteration.

A controller's state stays where ManiSkill keeps it (``_start_qpos``, ``_target_qpos``, ``_target_pose``): resets,
planners and the privileged state read it there. What is not in :data:`PARTS` is left to ManiSkill.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import sapien
import torch
from mani_skill.agents.base_agent import BaseAgent
from mani_skill.agents.controllers import (
    PassiveController,
    PDEEPosController,
    PDEEPoseController,
    PDJointPosController,
    PDJointPosMimicController,
    PDJointPosVelController,
    PDJointVelController,
)
from mani_skill.agents.controllers.base_controller import BaseController, CombinedController
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils.structs import Link, Pose

log = logging.getLogger(__name__)

IK_ITERATIONS = 100  # as in ManiSkill's Kinematics


class ControlStep:
    """Executes actions in one environment with CPU physics.

    Args:
        env: the environment; its agent may be replaced by a later reset.
    """

    def __init__(self, env: BaseEnv) -> None:
        self._env = env
        self._controller: BaseController | None = None
        self._parts: list[tuple[Part, slice]] | None = None

    def __call__(self, action: np.ndarray) -> None:
        """Drive the joints as the action says and simulate one control period.

        Args:
            action: float32 ``[d]``, finite, in the controller's units.
        """
        env = self._env
        if self._controller is None or env.agent.controller is not self._controller:
            self._bind()
        if self._parts is None:
            env._step_action(torch.as_tensor(action, dtype=torch.float32)[None])
            return
        qpos = env.agent.robot._objs[0].qpos
        for part, mine in self._parts:
            part.act(action[mine], qpos)
        env._before_control_step()
        for _ in range(env._sim_steps_per_control):
            env._before_simulation_step()
            env.scene.step()
            env._after_simulation_step()
        env._after_control_step()

    def _bind(self) -> None:
        """Look at the agent's controller; the parts stay None where ManiSkill has to do it."""
        self._controller = self._env.agent.controller
        reason = not_covered(self._env)
        if reason is not None:
            log.debug("%s: %s; ManiSkill's own control step is used", self._env.control_mode, reason)
            self._parts = None
            return
        controller = self._controller
        if isinstance(controller, CombinedController):
            mapping = controller.action_mapping
            named = [(part, slice(*mapping[name])) for name, part in controller.controllers.items()]
        else:
            named = [(controller, slice(None))]
        self._parts = [(PARTS[type(part)](part), mine) for part, mine in named]


def not_covered(env: BaseEnv) -> str | None:
    """Why an environment's control step is left to ManiSkill; None where it is done here."""
    agent = env.agent
    if type(env)._step_action is not BaseEnv._step_action:
        return f"{type(env).__name__} has a control step of its own"
    for name in ("set_action", "before_simulation_step"):
        if getattr(type(agent), name) is not getattr(BaseAgent, name):
            return f"{type(agent).__name__} has a {name} of its own"
    controller = agent.controller
    for part in controller.controllers.values() if type(controller) is CombinedController else [controller]:
        if type(part) not in PARTS:
            return f"{type(part).__name__} is not covered"
        if isinstance(part, PDJointPosController) and part.config.interpolate:
            return f"{type(part).__name__} interpolates its targets"
    return None


class Part(ABC):
    """One controller of an agent: some of its joints, some of its action dimensions.

    Args:
        controller: ManiSkill's; holds the state.
    """

    def __init__(self, controller: BaseController) -> None:
        self.controller = controller
        self._joints = [joint._objs[0] for joint in controller.joints]
        self._indices = np.asarray(controller.active_joint_indices)
        self._scales = controller._normalize_action
        if self._scales:
            low, high = controller.action_space_low.numpy(), controller.action_space_high.numpy()
            half = np.float32(0.5)
            self._middle, self._half_range = half * (high + low), half * (high - low)

    @abstractmethod
    def act(self, action: np.ndarray, qpos: np.ndarray) -> None:
        """Drive the joints.

        Args:
            action: float32 ``[n]``, this controller's dimensions.
            qpos: float32 ``[dof]``, the robot's joint positions now.
        """

    def _units(self, action: np.ndarray) -> np.ndarray:
        """An action in physical units, never the caller's own memory."""
        if not self._scales:
            return action.copy()
        return self._middle + self._half_range * np.clip(action, np.float32(-1.0), np.float32(1.0))

    def _start(self, qpos: np.ndarray) -> np.ndarray:
        start = qpos[self._indices]
        self.controller._start_qpos = torch.from_numpy(start[None])
        return start

    def _drive(self, target: np.ndarray) -> None:
        for joint, value in zip(self._joints, target.tolist()):
            joint.set_drive_target(value)

    def _drive_velocity(self, target: np.ndarray) -> None:
        for joint, value in zip(self._joints, target.tolist()):
            joint.set_drive_velocity_target(value)


class Passive(Part):
    """Does nothing."""

    def act(self, action: np.ndarray, qpos: np.ndarray) -> None:
        """See :class:`Part`."""


class JointVelocity(Part):
    """Joint velocities."""

    def act(self, action: np.ndarray, qpos: np.ndarray) -> None:
        """See :class:`Part`."""
        self._drive_velocity(self._units(action))


class JointPosition(Part):
    """Joint positions: absolute, or as a difference to the measured ones or to the last target."""

    def act(self, action: np.ndarray, qpos: np.ndarray) -> None:
        """See :class:`Part`."""
        self._aim(self._units(action), qpos)

    def _aim(self, wanted: np.ndarray, qpos: np.ndarray) -> None:
        controller, start = self.controller, self._start(qpos)
        if controller.config.use_delta:
            target = (controller._target_qpos[0].numpy() if controller.config.use_target else start) + wanted
        else:
            target = np.broadcast_to(wanted, start.shape).copy()
        controller._target_qpos = torch.from_numpy(target[None])
        self._drive(target)


class JointPositionVelocity(JointPosition):
    """Joint positions, then joint velocities."""

    def act(self, action: np.ndarray, qpos: np.ndarray) -> None:
        """See :class:`Part`."""
        units = self._units(action)
        n = len(units) // 2
        self._aim(units[:n], qpos)
        self.controller._target_qvel = torch.from_numpy(units[None, n:])
        self._drive_velocity(units[n:])


class Mimic(Part):
    """Joint positions of which some follow others (a gripper's two fingers)."""

    def __init__(self, controller: PDJointPosMimicController) -> None:
        super().__init__(controller)
        self._led = controller.control_joint_indices.numpy()
        self._following = controller.mimic_joint_indices.numpy()
        self._followed = controller.mimic_control_joint_indices.numpy()
        self._factor, self._offset = controller._multiplier.numpy(), controller._offset.numpy()

    def act(self, action: np.ndarray, qpos: np.ndarray) -> None:
        """See :class:`Part`."""
        controller, start, wanted = self.controller, self._start(qpos), self._units(action)
        target = controller._target_qpos[0].numpy()  # written in place, as ManiSkill does
        if controller.config.use_delta:
            wanted += (target if controller.config.use_target else start)[self._led]
        target[self._led] = wanted
        target[self._following] = target[self._followed] * self._factor + self._offset
        self._drive(target)


class ToolPosition(Part):
    """The tool's position, by inverse kinematics; its orientation stays."""

    def __init__(self, controller: PDEEPosController) -> None:
        super().__init__(controller)
        kinematics = controller.kinematics
        self._model, self._end = kinematics.pmodel, kinematics.end_link_idx
        self._model_joints = kinematics.pmodel_active_joint_indices.numpy()
        self._solved_joints = kinematics.pmodel_controlled_joint_indices.numpy()
        self._mask = kinematics.qmask.numpy().astype(np.int32)

    def act(self, action: np.ndarray, qpos: np.ndarray) -> None:
        """See :class:`Part`."""
        controller, start = self.controller, self._start(qpos)
        if controller.config.use_target:
            tool = controller._target_pose.raw_pose[0].numpy()
        else:
            tool = relative_pose(controller.root_link, controller.ee_link)
        pose = self._pose(tool, self._units(action))
        controller._target_pose = Pose(torch.from_numpy(pose[None]))
        joints, solved, _ = self._model.compute_inverse_kinematics(
            self._end,
            sapien.Pose(pose[:3], pose[3:]),
            initial_qpos=qpos[self._model_joints],
            active_qmask=self._mask,
            max_iterations=IK_ITERATIONS,
        )
        target = joints[self._solved_joints].astype(np.float32) if solved else start
        controller._target_qpos = torch.from_numpy(target[None])
        self._drive(target)

    def _pose(self, tool: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The pose to reach in the base frame, float32 ``[7]``, from where the tool is (or was to be)."""
        config = self.controller.config
        if not config.use_delta:
            return np.concatenate([wanted, UPRIGHT])
        if config.frame == "root_translation":
            return np.concatenate([wanted + tool[:3], standard(tool[3:])])
        return np.concatenate([tool[:3] + rotate(tool[3:], wanted), standard(tool[3:])])


class ToolPose(ToolPosition):
    """The tool's position and orientation (Euler angles XYZ), by inverse kinematics."""

    def _units(self, action: np.ndarray) -> np.ndarray:
        """As ManiSkill: the rotation is bounded by its norm and multiplied by its lower bound."""
        if not self._scales:
            return action.copy()
        position = self._middle[:3] + self._half_range[:3] * np.clip(action[:3], np.float32(-1.0), np.float32(1.0))
        turn = action[3:]
        norm = torch.linalg.norm(torch.from_numpy(turn[None]), axis=1).numpy()
        if norm[0] > 1:
            turn = turn * (np.float32(1.0) / norm)
        return np.concatenate([position, turn * np.float32(self.controller.config.rot_lower)])

    def _pose(self, tool: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        config, move, turn = self.controller.config, wanted[:3], quaternion_of_euler(wanted[3:6])
        if not config.use_delta:
            return np.concatenate([move, turn])
        aligned = "root_aligned_body_rotation" in config.frame
        q = standard(product(turn, tool[3:]) if aligned else product(tool[3:], turn))
        p = tool[:3] + (move if "root_translation" in config.frame else rotate(tool[3:], move))
        return np.concatenate([p, q])


PARTS: Mapping[type[BaseController], type[Part]] = {
    PassiveController: Passive,
    PDJointVelController: JointVelocity,
    PDJointPosController: JointPosition,
    PDJointPosVelController: JointPositionVelocity,
    PDJointPosMimicController: Mimic,
    PDEEPosController: ToolPosition,
    PDEEPoseController: ToolPose,
}
"""ManiSkill's controller class -> what does its work here. A subclass of a covered class is not covered."""

UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0], np.float32)
NOT_TURNED = 0.1  # denominators of quaternion candidates are at least twice this, as in ManiSkill


def relative_pose(base: Link, tool: Link) -> np.ndarray:
    """The tool's pose in the base's frame: float32 ``[7]``, metres and a wxyz quaternion."""
    root, end = base._objs[0].entity_pose, tool._objs[0].entity_pose
    back = root.q * CONJUGATE
    return np.concatenate([rotate(back, -root.p) + rotate(back, end.p), standard(product(back, end.q))])


CONJUGATE = np.array([1.0, -1.0, -1.0, -1.0], np.float32)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The Hamilton product of two wxyz quaternions, float32 ``[4]``, summed in ManiSkill's order."""
    aw, ax, ay, az = a
    bw, bx, by, bz = b
    return np.array(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        np.float32,
    )


def rotate(q: np.ndarray, point: np.ndarray) -> np.ndarray:
    """A point ``[3]`` turned by a unit quaternion."""
    return product(product(q, np.concatenate([ZERO, point])), q * CONJUGATE)[1:]


ZERO = np.zeros(1, np.float32)


def standard(q: np.ndarray) -> np.ndarray:
    """Of the two quaternions of a rotation, the one whose real part is not negative."""
    return -q if q[0] < 0 else q


def quaternion_of_euler(angles: np.ndarray) -> np.ndarray:
    """The wxyz quaternion, float32 ``[4]``, of rotations about x, then y, then z of the turned frame (radians)."""
    tensor = torch.from_numpy(angles)
    (cx, cy, cz), (sx, sy, sz) = torch.cos(tensor).numpy(), torch.sin(tensor).numpy()
    turns = np.array(
        [
            [[1, 0, 0], [0, cx, -sx], [0, sx, cx]],
            [[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]],
            [[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]],
        ],
        np.float32,
    )
    x, y, z = torch.from_numpy(turns)[:, None]
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = torch.matmul(torch.matmul(x, y), z)[0].numpy()
    one = np.float32(1.0)
    sums = (one + m00 + m11 + m22, one + m00 - m11 - m22, one - m00 + m11 - m22, one - m00 - m11 + m22)
    sizes = np.array(sums, np.float32)  # four times the square of each component
    positive = sizes > 0
    sizes[positive] = torch.sqrt(torch.from_numpy(sizes[positive])).numpy()
    sizes[~positive] = 0.0
    best = int(sizes.argmax())
    size = sizes[best]
    candidates = (
        (size * size, m21 - m12, m02 - m20, m10 - m01),
        (m21 - m12, size * size, m10 + m01, m02 + m20),
        (m02 - m20, m10 + m01, size * size, m12 + m21),
        (m10 - m01, m20 + m02, m21 + m12, size * size),
    )
    denominator = np.float32(2.0) * max(size, np.float32(NOT_TURNED))
    return standard(np.array(candidates[best], np.float32) / denominator)
