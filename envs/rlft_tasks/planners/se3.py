"""Rigid motions as 4x4 float64 matrices: logarithm, exponential, screw interpolation.

A twist is ``[v, w]`` (metres, radians), linear part first, expressed in the body frame, so that
``exp(log(inverse(a) @ b))`` leads from a to b. See Lynch and Park, *Modern Robotics*, chapter 3.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

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


def skew(w: np.ndarray) -> np.ndarray:
    """The cross-product matrix of ``w[3]``."""
    return np.array([[0.0, -w[2], w[1]], [w[2], 0.0, -w[0]], [-w[1], w[0], 0.0]])


def log(T: np.ndarray) -> np.ndarray:
    """The twist ``[6]`` whose exponential is T; its angle lies in [0, pi]."""
    w = Rotation.from_matrix(T[:3, :3]).as_rotvec()
    angle, W = float(np.linalg.norm(w)), skew(w)
    c = 0.0 if angle < SMALL_ANGLE else (1.0 - 0.5 * angle / np.tan(0.5 * angle)) / angle**2
    return np.concatenate([(np.eye(3) - 0.5 * W + c * W @ W) @ T[:3, 3], w])


def exp(twist: np.ndarray) -> np.ndarray:
    """The pose that is reached by moving along a twist ``[6]`` for unit time."""
    v, w = np.asarray(twist[:3], dtype=np.float64), np.asarray(twist[3:], dtype=np.float64)
    angle, W = float(np.linalg.norm(w)), skew(w)
    a, b = 0.5, 0.0
    if angle >= SMALL_ANGLE:
        a, b = (1 - np.cos(angle)) / angle**2, (angle - np.sin(angle)) / angle**3
    return pose((np.eye(3) + a * W + b * W @ W) @ v, Rotation.from_rotvec(w).as_matrix())


def screw(start: np.ndarray, end: np.ndarray, fraction: float) -> np.ndarray:
    """The pose at a fraction (0..1) of the constant screw motion from start to end.

    Translation and rotation advance together; without rotation this is a straight line.
    """
    return start @ exp(fraction * log(inverse(start) @ end))
