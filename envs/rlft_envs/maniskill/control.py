"""One control step on the CPU with the controllers' arithmetic in numpy. Importing it imports ManiSkill.

ManiSkill's controllers are written for batches on a GPU. For one row on the CPU their tensor calls take five times as
long as the physics that they command. Here is the same arithmetic, in the same order and precision (float32), so that
the joints are driven to the very same targets. Where a result's last bit depends on a torch kernel (sine, cosine, root,
3 x 3 product, norm), that kernel is called: inverse kinematics stops at a threshold, so a last bit could become a
whole iteration.

A controller's state stays where ManiSkill keeps it (``_start_qpos``, ``_target_qpos``, ``_target_pose``): resets,
planners and the privileged state read it there. What is not in :data:`PARTS` (joint velocities) is left to ManiSkill.
"""

import logging
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
)
from mani_skill.agents.controllers.base_controller import BaseController, CombinedController
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils.structs import Link, Pose

log = logging.getLogger(__name__)

IK_ITERATIONS = 100  # as in ManiSkill's Kinematics
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0], np.float32)
CONJUGATE = np.array([1.0, -1.0, -1.0, -1.0], np.float32)
ZERO, HALF, ONE, TWO = np.zeros(1, np.float32), np.float32(0.5), np.float32(1.0), np.float32(2.0)
NOT_TURNED = np.float32(0.1)  # denominators of quaternion candidates are at least twice this, as in ManiSkill


class ControlStep:
    """Executes actions in one environment with CPU physics, whose agent may be replaced by a later reset."""

    def __init__(self, env: BaseEnv) -> None:
        self._env = env
        self._controller: BaseController | None = None
        self._parts: list[tuple[_Part, slice]] | None = None  # None: ManiSkill has to do it

    def __call__(self, action: np.ndarray) -> None:
        """Drive the joints (``action``: float32 ``[d]``, finite, controller units); simulate one control period."""
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
        self._controller = controller = self._env.agent.controller
        named: list[tuple[BaseController, slice]] = [(controller, slice(None))]
        if type(controller) is CombinedController:
            mapping = controller.action_mapping
            named = [(part, slice(*mapping[name])) for name, part in controller.controllers.items()]
        reason = _not_covered(self._env, [part for part, _ in named])
        if reason is not None:
            log.debug("%s: %s; ManiSkill's own control step is used", self._env.control_mode, reason)
        self._parts = None if reason is not None else [(PARTS[type(part)](part), mine) for part, mine in named]


def _not_covered(env: BaseEnv, parts: list[BaseController]) -> str | None:
    """Why an environment's control step is left to ManiSkill; None where it is done here."""
    agent = type(env.agent), BaseAgent
    ours = ((type(env), BaseEnv, "_step_action"), (*agent, "set_action"), (*agent, "before_simulation_step"))
    for kind, base, name in ours:
        if getattr(kind, name) is not getattr(base, name):
            return f"{kind.__name__} has a {name} of its own"
    for part in parts:
        if type(part) not in PARTS:
            return f"{type(part).__name__} is not covered"
        if isinstance(part, PDJointPosController) and part.config.interpolate:
            return f"{type(part).__name__} interpolates its targets"
    return None


class _Part:
    """One of ManiSkill's controllers: some of an agent's joints, some of its action dimensions. This one is passive."""

    def __init__(self, controller: BaseController) -> None:
        self.controller = controller  # holds the state
        self._joints = [joint._objs[0] for joint in controller.joints]
        self._indices = np.asarray(controller.active_joint_indices)
        self._scales = controller._normalize_action
        if self._scales:
            low, high = controller.action_space_low.numpy(), controller.action_space_high.numpy()
            self._middle, self._half_range = HALF * (high + low), HALF * (high - low)

    def act(self, action: np.ndarray, qpos: np.ndarray) -> None:
        """Drive the joints by this controller's actions, float32 ``[n]``, from the robot's positions now, ``[dof]``."""

    def _units(self, action: np.ndarray) -> np.ndarray:
        """An action in physical units, never the caller's own memory."""
        if not self._scales:
            return action.copy()
        return self._middle + self._half_range * np.clip(action, -ONE, ONE)

    def _start(self, qpos: np.ndarray) -> np.ndarray:
        start = qpos[self._indices]
        self.controller._start_qpos = torch.from_numpy(start[None])
        return start

    def _drive(self, target: np.ndarray) -> None:
        for joint, value in zip(self._joints, target.tolist()):
            joint.set_drive_target(value)


class _JointPosition(_Part):
    """Absolute, or as a difference to the measured positions or to the last target."""

    def act(self, action: np.ndarray, qpos: np.ndarray) -> None:
        controller, start, wanted = self.controller, self._start(qpos), self._units(action)
        if controller.config.use_delta:
            target = (controller._target_qpos[0].numpy() if controller.config.use_target else start) + wanted
        else:
            target = np.broadcast_to(wanted, start.shape).copy()
        controller._target_qpos = torch.from_numpy(target[None])
        self._drive(target)


class _Mimic(_Part):
    """Joint positions of which some follow others (a gripper's two fingers)."""

    def __init__(self, controller: PDJointPosMimicController) -> None:
        super().__init__(controller)
        self._led = controller.control_joint_indices.numpy()
        self._following = controller.mimic_joint_indices.numpy()
        self._followed = controller.mimic_control_joint_indices.numpy()
        self._factor, self._offset = controller._multiplier.numpy(), controller._offset.numpy()

    def act(self, action: np.ndarray, qpos: np.ndarray) -> None:
        controller, start, wanted = self.controller, self._start(qpos), self._units(action)
        target = controller._target_qpos[0].numpy()  # written in place, as ManiSkill does
        if controller.config.use_delta:
            wanted += (target if controller.config.use_target else start)[self._led]
        target[self._led] = wanted
        target[self._following] = target[self._followed] * self._factor + self._offset
        self._drive(target)


class _ToolPosition(_Part):
    """The tool's position, by inverse kinematics; its orientation stays."""

    def __init__(self, controller: PDEEPosController) -> None:
        super().__init__(controller)
        kinematics = controller.kinematics
        self._model, self._end = kinematics.pmodel, kinematics.end_link_idx
        self._model_joints = kinematics.pmodel_active_joint_indices.numpy()
        self._solved_joints = kinematics.pmodel_controlled_joint_indices.numpy()
        self._mask = kinematics.qmask.numpy().astype(np.int32)

    def act(self, action: np.ndarray, qpos: np.ndarray) -> None:
        controller, start = self.controller, self._start(qpos)
        if controller.config.use_target:
            tool = controller._target_pose.raw_pose[0].numpy()
        else:
            tool = _relative_pose(controller.root_link, controller.ee_link)
        pose = self._pose(tool, self._units(action))
        controller._target_pose = Pose(torch.from_numpy(pose[None]))
        goal, initial, mask = sapien.Pose(pose[:3], pose[3:]), qpos[self._model_joints], self._mask
        joints, solved, _ = self._model.compute_inverse_kinematics(
            self._end, goal, initial_qpos=initial, active_qmask=mask, max_iterations=IK_ITERATIONS
        )
        target = joints[self._solved_joints].astype(np.float32) if solved else start
        controller._target_qpos = torch.from_numpy(target[None])
        self._drive(target)

    def _pose(self, tool: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The pose to reach in the base frame, float32 ``[7]``, from where the tool is (or was to be)."""
        config = self.controller.config
        if not config.use_delta:
            return np.concatenate([wanted, UPRIGHT])
        move = wanted if config.frame == "root_translation" else _rotate(tool[3:], wanted)
        return np.concatenate([tool[:3] + move, _standard(tool[3:])])


class _ToolPose(_ToolPosition):
    """The tool's position and orientation (Euler angles XYZ), by inverse kinematics."""

    def _units(self, action: np.ndarray) -> np.ndarray:
        """As ManiSkill: the rotation is bounded by its norm and multiplied by its lower bound."""
        if not self._scales:
            return action.copy()
        position = self._middle[:3] + self._half_range[:3] * np.clip(action[:3], -ONE, ONE)
        turn = action[3:]
        norm = torch.linalg.norm(torch.from_numpy(turn[None]), axis=1).numpy()
        if norm[0] > 1:
            turn = turn * (ONE / norm)
        return np.concatenate([position, turn * np.float32(self.controller.config.rot_lower)])

    def _pose(self, tool: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        config, move, turn = self.controller.config, wanted[:3], _quaternion_of_euler(wanted[3:6])
        if not config.use_delta:
            return np.concatenate([move, turn])
        aligned = "root_aligned_body_rotation" in config.frame
        q = _standard(_product(turn, tool[3:]) if aligned else _product(tool[3:], turn))
        p = tool[:3] + (move if "root_translation" in config.frame else _rotate(tool[3:], move))
        return np.concatenate([p, q])


PARTS: Mapping[type[BaseController], type[_Part]] = {
    PassiveController: _Part,
    PDJointPosController: _JointPosition,
    PDJointPosMimicController: _Mimic,
    PDEEPosController: _ToolPosition,
    PDEEPoseController: _ToolPose,
}
"""ManiSkill's controller class -> what does its work here. A subclass of a covered class is not covered."""


def _relative_pose(base: Link, tool: Link) -> np.ndarray:
    """The tool's pose in the base's frame: float32 ``[7]``, metres and a wxyz quaternion."""
    root, end = base._objs[0].entity_pose, tool._objs[0].entity_pose
    back = root.q * CONJUGATE
    return np.concatenate([_rotate(back, -root.p) + _rotate(back, end.p), _standard(_product(back, end.q))])


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The Hamilton product of two wxyz quaternions, float32 ``[4]``, summed in ManiSkill's order."""
    aw, ax, ay, az = a
    bw, bx, by, bz = b
    w, x = aw * bw - ax * bx - ay * by - az * bz, aw * bx + ax * bw + ay * bz - az * by
    y, z = aw * by - ax * bz + ay * bw + az * bx, aw * bz + ax * by - ay * bx + az * bw
    return np.array([w, x, y, z], np.float32)


def _rotate(q: np.ndarray, point: np.ndarray) -> np.ndarray:
    """A point ``[3]`` turned by a unit quaternion."""
    return _product(_product(q, np.concatenate([ZERO, point])), q * CONJUGATE)[1:]


def _standard(q: np.ndarray) -> np.ndarray:
    """Of the two quaternions of a rotation, the one whose real part is not negative."""
    return -q if q[0] < 0 else q


def _quaternion_of_euler(angles: np.ndarray) -> np.ndarray:
    """The wxyz quaternion, float32 ``[4]``, of rotations about x, then y, then z of the turned frame (radians)."""
    tensor = torch.from_numpy(angles)
    (cx, cy, cz), (sx, sy, sz) = torch.cos(tensor).numpy(), torch.sin(tensor).numpy()
    about_x = [[1, 0, 0], [0, cx, -sx], [0, sx, cx]]
    about_y = [[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]
    about_z = [[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]]
    x, y, z = torch.from_numpy(np.array([about_x, about_y, about_z], np.float32))[:, None]
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = torch.matmul(torch.matmul(x, y), z)[0].numpy()
    sums = (ONE + m00 + m11 + m22, ONE + m00 - m11 - m22, ONE - m00 + m11 - m22, ONE - m00 - m11 + m22)
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
    return _standard(np.array(candidates[best], np.float32) / (TWO * max(size, NOT_TURNED)))
