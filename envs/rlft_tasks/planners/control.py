"""From a wanted joint position to an action of the environment's controller.

Every delta controller is closed loop here: the action is the wanted pose minus the pose that the
controller itself starts from (the measured one, or its own last target), so errors do not add up.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from rlft_envs.errors import EnvSetupError
from rlft_tasks.planners import se3
from rlft_tasks.planners.kinematics import Arm

OPEN, CLOSED = 1.0, 0.0  # fractions of the gripper controller's range


@dataclass(frozen=True)
class Command:
    """An arm action and how much of the controller's range it takes."""

    action: np.ndarray  # `[arm width]`, controller units
    load: float  # largest share of a bound; above 1 the controller would clip


class Control:
    """The encoder for the control mode that a ManiSkill agent of one environment is in.

    It has an ``arm`` and a ``gripper`` controller; its control period is in seconds.
    """

    def __init__(self, agent: Any, arm: Arm, period: float) -> None:
        from mani_skill.agents import controllers as kinds

        controllers, self._mapping = agent.controller.controllers, agent.controller.action_mapping
        self._arm, self._arm_controller, self._gripper = arm, controllers["arm"], controllers["gripper"]
        kind = type(self._arm_controller)
        if kind not in (kinds.PDEEPosController, kinds.PDEEPoseController, kinds.PDJointPosController):
            raise EnvSetupError(
                f"env.control_mode={agent.control_mode!r} cannot be planned for; use one of pd_joint_pos, "
                "pd_joint_delta_pos, pd_joint_target_delta_pos, pd_ee_delta_pos, pd_ee_delta_pose, "
                "pd_ee_target_delta_pos, pd_ee_target_delta_pose, pd_ee_pose"
            )
        if not isinstance(self._gripper, kinds.PDJointPosMimicController | kinds.PDJointPosController):
            raise EnvSetupError(f"a gripper controller of type {type(self._gripper).__name__} cannot be planned for")
        self._in_tool_space = kind is not kinds.PDJointPosController
        self.turns = kind is not kinds.PDEEPosController  # whether the mode can change the tool's orientation
        config = self._arm_controller.config
        # The joint drives follow a constant target as a first-order lag of damping / stiffness seconds. One
        # control period covers the share k of the way to the target, so a target that leads by period / k
        # makes the arm follow the path on time.
        lag = float(np.max(config.damping)) / float(np.max(config.stiffness))
        self.look_ahead = period / (1.0 - np.exp(-period / lag))  # seconds

    def dims(self, part: str) -> tuple[int, ...]:
        """The action dimensions of ``arm`` or ``gripper``."""
        return tuple(range(*self._mapping[part]))

    def encode(self, joints: np.ndarray) -> Command:
        """The arm action that drives towards joint positions ``[dof]``, radians."""
        config = self._arm_controller.config
        if not self._in_tool_space:
            controller, raw = self._arm_controller, joints
            if config.use_delta:
                start = controller._target_qpos if config.use_target else controller.qpos
                raw = joints - start[0].cpu().numpy().astype(np.float64)
            return self._normalise(raw, raw[:0])
        target = self._arm.forward(joints)
        move, turn = target[:3, 3], target[:3, :3]
        if config.use_delta:
            start = self._tool_start()
            move, R = move - start[:3, 3], start[:3, :3]
            if "body_translation" in config.frame:
                move = R.T @ move
            turn = turn @ R.T if "root_aligned_body_rotation" in config.frame else R.T @ turn
        return self._normalise(move, Rotation.from_matrix(turn).as_euler("XYZ") if self.turns else move[:0])

    def _tool_start(self) -> np.ndarray:
        """Where a delta tool controller starts from, in the robot's base frame."""
        controller = self._arm_controller
        found = controller._target_pose if controller.config.use_target else controller.ee_pose_at_base
        return se3.from_raw(found.raw_pose[0].cpu().numpy())

    def _normalise(self, linear: np.ndarray, turn: np.ndarray) -> Command:
        """Physical units to controller units: linear part by its bounds, rotation by the norm's bound."""
        controller = self._arm_controller
        if not controller._normalize_action:
            space = controller.single_action_space
            action = np.concatenate([linear, turn])
            inside = bool((action >= space.low).all() and (action <= space.high).all())
            return Command(action, 1.0 if inside else np.inf)
        low = controller.action_space_low.cpu().numpy().astype(np.float64)
        high = controller.action_space_high.cpu().numpy().astype(np.float64)
        n = len(linear)
        linear = (linear - (high[:n] + low[:n]) / 2) / ((high[:n] - low[:n]) / 2)
        load = float(np.abs(linear).max())
        if len(turn):
            # The controller multiplies the rotation by its *lower* bound (and bounds the norm), so the sign turns.
            turn = turn / np.broadcast_to(np.asarray(controller.config.rot_lower, dtype=np.float64), 3)
            load = max(load, float(np.linalg.norm(turn)))
        return Command(np.concatenate([linear, turn]), load)

    def assemble(self, arm_action: np.ndarray, gripper: float) -> np.ndarray:
        """The whole action, float32 ``[d]``, with the gripper at a fraction of its range (0 closed, 1 open)."""
        space = self._gripper.single_action_space
        parts = {"arm": arm_action, "gripper": space.low + gripper * (space.high - space.low)}
        out = np.zeros(max(end for _, end in self._mapping.values()), dtype=np.float32)
        for name, (begin, end) in self._mapping.items():
            out[begin:end] = parts[name]
        return out
