"""Rigid motions as 4x4 float64 matrices: logarithm and exponential.

A twist is ``[v, w]`` (metres, radians), linear part first, expressed in the body frame. See Lynch and Park, *Modern
Robotics*, chapter 3.
"""

import numpy as np
from scipy.spatial.transform import RigidTransform, Rotation

SMALL_ANGLE = 1e-8  # radians: below it terms of second order are left out


def pose(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Build a pose from a position ``[3]`` and a rotation matrix ``[3, 3]``."""
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = rotation, position
    return out


def from_raw(raw: np.ndarray) -> np.ndarray:
    """Build a pose from ``[x, y, z, qw, qx, qy, qz]``, the simulator's order."""
    raw = np.asarray(raw, dtype=np.float64).reshape(7)
    return pose(raw[:3], Rotation.from_quat(raw[[4, 5, 6, 3]]).as_matrix())


def inverse(T: np.ndarray) -> np.ndarray:
    """Invert a pose."""
    R = T[:3, :3].T
    return pose(-R @ T[:3, 3], R)


def log(T: np.ndarray) -> np.ndarray:
    """The twist ``[6]`` that leads to T in unit time; its angle lies in [0, pi]."""
    # Inverse kinematics asks for it in every iteration, and RigidTransform takes four times as long.
    w, t = Rotation.from_matrix(T[:3, :3]).as_rotvec(), T[:3, 3]
    angle, once = float(np.linalg.norm(w)), np.cross(w, t)
    c = 0.0 if angle < SMALL_ANGLE else (1.0 - 0.5 * angle / np.tan(0.5 * angle)) / angle**2
    return np.concatenate([t - 0.5 * once + c * np.cross(w, once), w])


def exp(twist: np.ndarray) -> np.ndarray:
    """The pose that a twist ``[6]`` leads to in unit time; its part f leads along a screw: both parts advance alike."""
    return RigidTransform.from_exp_coords(np.roll(twist, 3)).as_matrix()  # scipy's are [w, v]
