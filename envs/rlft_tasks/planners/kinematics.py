"""Forward and inverse kinematics of the arm, on the simulator's own Pinocchio model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlft_envs.errors import PlanError
from rlft_tasks.planners import se3
from rlft_tasks.planners.paths import polyline

DAMPING = 1e-2
MAX_ITERATIONS = 100
MAX_STEP = 0.3  # radians per iteration: the linearisation holds no further
POSITION_TOLERANCE = 1e-4  # metres
ROTATION_TOLERANCE = 1e-3  # radians
LIMIT_MARGIN = 1e-3  # radians kept from the joint limits
MAX_JUMP = 0.5  # radians between neighbouring samples: more is another branch of the solution


class Arm:
    """The controlled joints of one robot and its tool frame. Poses are in its base frame unless a name says world.

    The ManiSkill agent has one environment, a controller ``arm`` and a :func:`rlft_envs.maniskill.reading.tool_link`.
    """

    def __init__(self, agent: Any) -> None:
        from rlft_envs.maniskill.reading import tool_link

        self._robot, self._model = agent.robot, agent.robot._objs[0].create_pinocchio_model()
        self._link = int(tool_link(agent).index[0])
        self._index = agent.controller.controllers["arm"].active_joint_indices.cpu().numpy().astype(int)
        limits = agent.robot.get_qlimits()[0].cpu().numpy().astype(np.float64)[self._index]
        self.lower, self.upper = limits[:, 0] + LIMIT_MARGIN, limits[:, 1] - LIMIT_MARGIN

    def joints(self) -> np.ndarray:
        """The measured joint positions ``[dof]``, radians."""
        return self._robot.get_qpos()[0].cpu().numpy().astype(np.float64)[self._index]

    def base(self) -> np.ndarray:
        """The robot's base pose in the world."""
        return se3.from_raw(self._robot.pose.raw_pose[0].cpu().numpy())

    def _expand(self, joints: np.ndarray) -> np.ndarray:
        full = np.zeros(int(self._robot.max_dof))
        full[self._index] = joints
        return full

    def forward(self, joints: np.ndarray) -> np.ndarray:
        """The tool pose at joint positions ``[dof]``."""
        self._model.compute_forward_kinematics(self._expand(joints))
        found = self._model.get_link_pose(self._link)
        return se3.from_raw(np.concatenate([found.p, found.q]))

    def inverse(self, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Find joint positions ``[dof]``, radians, near ``start`` that reach a tool pose to 0.1 mm and 1 mrad.

        Damped least squares. A joint that a step would push through its limit is taken out of that step, and the
        others make up for it. Where nothing is found, the PlanError ``ik`` says what distance remained.
        """
        joints, error = np.clip(start, self.lower, self.upper), np.zeros(6)
        for _ in range(MAX_ITERATIONS):
            error = se3.log(se3.inverse(self.forward(joints)) @ target)
            if np.linalg.norm(error[:3]) < POSITION_TOLERANCE and np.linalg.norm(error[3:]) < ROTATION_TOLERANCE:
                return joints
            jacobian = self._model.compute_single_link_local_jacobian(self._expand(joints), self._link)[:, self._index]
            joints = np.clip(joints + self._step(jacobian, error, joints), self.lower, self.upper)
        where = f"{np.round(target[:3, 3], 3).tolist()} m in the robot's base frame"
        remain = f"{np.linalg.norm(error[:3]) * 1e3:.1f} mm and {np.linalg.norm(error[3:]):.3f} rad remain"
        raise PlanError("ik", f"no joint solution for the tool at {where}: {remain}")

    def _step(self, jacobian: np.ndarray, error: np.ndarray, joints: np.ndarray) -> np.ndarray:
        """One damped least-squares step ``[dof]`` that respects the joint limits."""
        free, step = np.ones(len(joints), dtype=bool), np.zeros(len(joints))
        for _ in range(len(joints)):
            J, step = jacobian[:, free], np.zeros(len(joints))
            step[free] = J.T @ np.linalg.solve(J @ J.T + DAMPING**2 * np.eye(6), error)
            blocked = free & (((joints <= self.lower) & (step < 0)) | ((joints >= self.upper) & (step > 0)))
            if not blocked.any():
                break
            free &= ~blocked
        return step * min(1.0, MAX_STEP / max(float(np.abs(step).max()), 1e-12))

    def follow(
        self, through: Sequence[np.ndarray], start: np.ndarray, blend: float, *, may_end_short: bool = False
    ) -> np.ndarray:
        """Joint positions ``[n, dof]``, radians, that lead the tool from ``start`` through world poses.

        They are found along a :func:`polyline`, each from the one before. A path that may end short does so where the
        next pose is out of reach. PlanError: ``ik``, a sample is out of reach; ``no_plan``, the path changes branch.
        """
        to_base = se3.inverse(self.base())
        poses = polyline([self.forward(start), *(to_base @ T for T in through)], blend)
        out = [self.inverse(poses[0], start)]
        for target in poses[1:]:
            try:
                out.append(self.inverse(target, out[-1]))
            except PlanError:
                if not may_end_short:
                    raise
                break
            jump = float(np.abs(out[-1] - out[-2]).max())
            if jump > MAX_JUMP:
                raise PlanError("no_plan", f"a joint would jump {jump:.2f} rad between two neighbouring tool poses")
        return np.stack(out)
