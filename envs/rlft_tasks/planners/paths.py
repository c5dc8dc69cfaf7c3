"""From tool waypoints to a joint path with a time law.

:func:`polyline` samples constant screw motions between tool poses; after inverse kinematics,
:func:`time_path` gives the joint path the fastest time law within velocity and acceleration limits
(time-optimal path parameterisation by reachability analysis, Pham and Pham 2018; the toppra package).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rlft_envs.errors import PlanError
from rlft_tasks.planners import se3

STEP_METRES = 0.01
STEP_RADIANS = 0.08
BLEND_RADIANS = 0.25  # of a leg's turn, rounded off with a corner at most: more would hide a jump of the joints
SAME_JOINTS = 1e-4  # radians; closer samples would make the spline's abscissa degenerate


def polyline(poses: Sequence[np.ndarray], blend: float = 0.0) -> list[np.ndarray]:
    """Sample the screw motions through two or more tool poses, about a centimetre or five degrees apart.

    Samples nearer than ``blend`` metres to an inner waypoint are left out, so that the spline through the rest rounds
    the corner and the arm need not stop there. Never more than a third of a leg, nor than ``BLEND_RADIANS`` of its
    turn. The two ends always stay.
    """
    legs = list(pairwise(poses))
    out = [poses[0]]
    for i, (start, end) in enumerate(legs):
        twist = se3.log(se3.inverse(start) @ end)
        length, angle = float(np.linalg.norm(twist[:3])), float(np.linalg.norm(twist[3:]))
        count = max(1, int(np.ceil(max(length / STEP_METRES, angle / STEP_RADIANS))))
        cut = min(blend / max(length, 1e-9), BLEND_RADIANS / max(angle, 1e-9), 1 / 3)
        first, last = (cut if i > 0 else 0.0), (1.0 - cut if i < len(legs) - 1 else 1.0)
        out += [start @ se3.exp(j / count * twist) for j in range(1, count + 1) if first <= j / count <= last]
    return out


@dataclass(frozen=True)
class TimedPath:
    """A joint path over time."""

    trajectory: Callable[[float], np.ndarray]
    duration: float  # seconds; 0 where it goes nowhere

    def joints(self, seconds: float) -> np.ndarray:
        """The joint positions ``[dof]`` at a time, radians; clamped to the path's ends."""
        return np.asarray(self.trajectory(float(np.clip(seconds, 0.0, self.duration))), dtype=np.float64)


def time_path(samples: np.ndarray, max_velocity: float, max_acceleration: float) -> TimedPath:
    """Give a joint path, ``[n, dof]`` radians, the fastest time law that starts and ends at rest (else ``no_plan``).

    The limits are those of every joint, rad/s and rad/s^2.
    """
    import toppra
    from toppra import algorithm, constraint

    moved = np.abs(np.diff(samples, axis=0)).max(axis=1) > SAME_JOINTS
    samples = samples[np.concatenate([[True], moved])]
    if len(samples) < 2:
        return TimedPath(lambda _: samples[-1], 0.0)
    logging.getLogger("toppra").setLevel(logging.ERROR)  # it warns about every grid it chooses
    distance = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(samples, axis=0), axis=1))])
    both_ways = np.tile([-1.0, 1.0], (samples.shape[1], 1))
    limits = [
        constraint.JointVelocityConstraint(max_velocity * both_ways),
        constraint.JointAccelerationConstraint(max_acceleration * both_ways),
    ]
    spline = toppra.SplineInterpolator(distance, samples)
    trajectory = algorithm.TOPPRA(limits, spline, parametrizer="ParametrizeConstAccel").compute_trajectory(0.0, 0.0)
    if trajectory is None:
        within = f"{max_velocity} rad/s and {max_acceleration} rad/s^2"
        raise PlanError("no_plan", f"no time law for a joint path of {len(samples)} samples within {within}")
    return TimedPath(trajectory, float(trajectory.duration))
