"""Who hands the cube over: waypoints for both grippers, turned into joint angles by damped least squares."""

from typing import Any, NamedTuple

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from rlft_envs.errors import PlanError
from rlft_envs.gym.env import GymnasiumEnv

REACH = 0.14  # metres from the gripper's link to the middle between its fingertips
MIDDLE = np.array([0.0, 0.5, 0.2])  # between the arms, metres
OPEN, CLOSED = 1.0, 0.0  # of a gripper, as in the actions
TOLERANCE = 0.01  # metres and radians that a waypoint may be missed by
STRIDE = 0.05  # metres and radians of one round of inverse kinematics
JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")


def pointing(yaw: float, pitch: float, roll: float = 0.0) -> np.ndarray:
    """A gripper's rotation ``[3, 3]``: its x axis turned by yaw, then down by pitch, then about itself; radians."""
    return Rotation.from_euler("ZYX", [yaw, pitch, roll]).as_matrix()


# Each holds the cube by faces that the other leaves free: the right from above, the left from the side.
ROTATIONS = {"left": pointing(0.0, 0.0, np.pi / 2), "right": pointing(np.pi, np.pi / 3)}
# Joint angles near all solutions: from the start's, the right wrist would turn round in passing its singularity.
NEAR = {"left": np.array([0.0, -0.96, 1.16, 0.0, -0.3, np.pi / 2]), "right": np.array([0.0, -0.6, 0.8, 0.0, 0.8, 0.0])}


class Waypoint(NamedTuple):
    """Where the fingertips of both arms are after so many more steps, metres; grips are closed 0 to open 1."""

    steps: int
    left: np.ndarray
    right: np.ndarray
    left_grip: float
    right_grip: float


def waypoints(cube: np.ndarray) -> list[Waypoint]:
    """From the start until the left gripper alone holds the cube, whose centre is given, metres ``[3]``."""
    meet = MIDDLE + np.array([0.0, (cube[1] - MIDDLE[1]) / 2, 0.0])
    above, aside = cube + np.array([0.0, 0.0, 0.08]), meet - np.array([0.12, 0.0, 0.0])
    return [
        Waypoint(25, aside, above, OPEN, OPEN),
        Waypoint(12, aside, cube, OPEN, OPEN),
        Waypoint(8, aside, cube, OPEN, CLOSED),
        Waypoint(25, aside, meet, OPEN, CLOSED),
        Waypoint(12, meet, meet, OPEN, CLOSED),
        Waypoint(8, meet, meet, CLOSED, CLOSED),
        Waypoint(8, meet, meet, CLOSED, OPEN),
    ]


class Arm:
    """One arm's inverse kinematics, on a copy of the simulation's state; ``side`` is left or right."""

    def __init__(self, model: Any, side: str) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        self._body = model.body(f"vx300s_{side}/gripper_link").id
        joints = [model.joint(f"vx300s_{side}/{name}") for name in JOINTS]
        self.qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dofs = np.array([joint.dofadr[0] for joint in joints])
        self._near, self._wanted = NEAR[side], ROTATIONS[side]
        self._low, self._high = np.array([joint.range for joint in joints]).T

    def solve(self, tips: np.ndarray, rounds: int = 200) -> np.ndarray:
        """Joint angles that bring the fingertips there, radians ``[6]``; PlanError where there are none."""
        angles, rotation = self._near, self._wanted
        jacobian, error = np.zeros((6, self._model.nv)), np.zeros(6)
        for _ in range(rounds):
            self._data.qpos[self.qpos] = angles
            mujoco.mj_kinematics(self._model, self._data)
            mujoco.mj_comPos(self._model, self._data)  # the Jacobian needs it
            now = np.asarray(self._data.xmat[self._body]).reshape(3, 3)
            error[:3] = tips - REACH * rotation[:, 0] - self._data.xpos[self._body]
            error[3:] = 0.5 * sum(np.cross(now[:, k], rotation[:, k]) for k in range(3))
            if np.abs(error).max() < TOLERANCE / 20:
                break
            mujoco.mj_jacBody(self._model, self._data, jacobian[:3], jacobian[3:], self._body)
            j = jacobian[:, self._dofs]
            step = np.clip(error, -STRIDE, STRIDE)  # far steps end in joint angles that are turned round
            angles = np.clip(angles + j.T @ np.linalg.solve(j @ j.T + 1e-4 * np.eye(6), step), self._low, self._high)
        if np.abs(error).max() > TOLERANCE:
            raise PlanError("ik", f"the arm misses {np.round(tips, 3)} by {np.abs(error).max():.3f}")
        return angles


class TransferExpert:
    """Hands the cube over along straight lines in joint space, planned once: the cube waits where it lies."""

    frozen_action_dims: tuple[int, ...] = ()
    noisy_dims: tuple[int, ...] = tuple(i for i in range(14) if i not in (6, 13))  # not the grippers
    success_counts = True

    def __init__(self, env: GymnasiumEnv) -> None:
        scene: Any = env.env.unwrapped
        physics = scene._env.physics
        arms = [Arm(physics.model.ptr, side) for side in ("left", "right")]
        cube = np.array(physics.named.data.xpos["box"])
        cube[2] = 0.02  # it has not fallen yet
        now = [np.array(physics.data.qpos[arm.qpos]) for arm in arms]
        self._actions: list[np.ndarray] = []
        self._step = 0
        for way in waypoints(cube):
            goals = [arm.solve(tips) for arm, tips in zip(arms, (way.left, way.right))]
            for part in np.linspace(0.0, 1.0, way.steps + 1)[1:]:
                left, right = (a + part * (b - a) for a, b in zip(now, goals))
                self._actions.append(np.array([*left, way.left_grip, *right, way.right_grip], dtype=np.float32))
            now = goals

    def act(self) -> np.ndarray | None:
        """The next joint targets and grips, float32 ``[14]``; None where the plan is over."""
        self._step += 1
        return self._actions[self._step - 1].copy() if self._step <= len(self._actions) else None

    def hold(self) -> np.ndarray:
        """The last targets again, float32 ``[14]``."""
        return self._actions[min(max(self._step, 1), len(self._actions)) - 1].copy()
