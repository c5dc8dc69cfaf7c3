"""From tool waypoints to a joint path with a time law.

:func:`polyline` samples constant screw motions between tool poses; after inverse kinematics,
:func:`time_path` gives the joint path the fastest time law within velocity and acceleration limits
(time-optimal path parameterisation by reachability analysis, Pham and Pham 2018; the toppra package).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from rlft_envs.errors import PlanError
from rlft_tasks.planners import se3

STEP_METRES = 0.01
STEP_RADIANS = 0.08
BLEND_RADIANS = 0.25  # of a leg's turn, rounded off with a corner at most: more would hide a jump of the joints
SAME_JOINTS = 1e-4  # radians; closer samples would make the spline's abscissa degenerate


def polyline(poses: Sequence[np.ndarray], blend: float = 0.0) -> list[np.ndarray]:
    """Sample the screw motions through tool poses, about a centimetre or five degrees apart.

    Args:
        poses: at least two poses; the first is the start.
        blend: samples nearer than this to an inner waypoint are left out, metres, so that the spline
            through the rest rounds the corner and the arm need not stop there. Never more than a third
            of a leg, nor than ``BLEND_RADIANS`` of its turn.

    Returns:
        the sampled poses, both ends included.
    """
    legs = list(pairwise(poses))
    out = [poses[0]]
    for i, (start, end) in enumerate(legs):
        twist = se3.log(se3.inverse(start) @ end)
        length, angle = float(np.linalg.norm(twist[:3])), float(np.linalg.norm(twist[3:]))
        count = max(1, int(np.ceil(max(length / STEP_METRES, angle / STEP_RADIANS))))
        cut = min(blend / max(length, 1e-9), BLEND_RADIANS / max(angle, 1e-9), 1 / 3)
        first, last = (cut if i > 0 else 0.0), (1.0 - cut if i < len(legs) - 1 else 1.0)
        fractions = [j / count for j in range(1, count + 1)]
        out += [se3.screw(start, end, f) for f in fractions if first <= f <= last]
    return out


@dataclass(frozen=True)
class TimedPath:
    """A joint path over time.

    Attributes:
        duration: seconds.
    """

    trajectory: Any
    duration: float

    def joints(self, seconds: float) -> np.ndarray:
        """The joint positions ``[dof]`` at a time, radians; clamped to the path's ends."""
        return np.asarray(self.trajectory(float(np.clip(seconds, 0.0, self.duration))), dtype=np.float64)


@dataclass(frozen=True)
class StillPath:
    """A path that stays where it is."""

    position: np.ndarray
    duration: float = 0.0

    def joints(self, seconds: float) -> np.ndarray:
        """The position ``[dof]``, at any time."""
        return self.position


def time_path(samples: np.ndarray, max_velocity: float, max_acceleration: float) -> TimedPath | StillPath:
    """Give a joint path the fastest time law that starts and ends at rest.

    Args:
        samples: ``[n, dof]`` joint positions along the path, radians.
        max_velocity: limit on every joint's speed, rad/s.
        max_acceleration: limit on every joint's acceleration, rad/s^2.

    Raises:
        PlanError: ``no_plan``, no time law within the limits.
    """
    import toppra
    from toppra import algorithm, constraint

    moved = np.abs(np.diff(samples, axis=0)).max(axis=1) > SAME_JOINTS
    samples = samples[np.concatenate([[True], moved])]
    if len(samples) < 2:
        return StillPath(samples[-1])
    logging.getLogger("toppra").setLevel(logging.ERROR)  # it warns about every grid it chooses
    dof = samples.shape[1]
    distance = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(samples, axis=0), axis=1))])
    spline = toppra.SplineInterpolator(distance, samples)
    limits = np.tile([-1.0, 1.0], (dof, 1))
    solver = algorithm.TOPPRA(
        [
            constraint.JointVelocityConstraint(max_velocity * limits),
            constraint.JointAccelerationConstraint(max_acceleration * limits),
        ],
        spline,
        parametrizer="ParametrizeConstAccel",
    )
    trajectory = solver.compute_trajectory(0.0, 0.0)
    if trajectory is None:
        raise PlanError(
            "no_plan",
            f"no time law for a joint path of {len(samples)} samples within {max_velocity} rad/s "
            f"and {max_acceleration} rad/s^2",
        )
    return TimedPath(trajectory, float(trajectory.duration))
