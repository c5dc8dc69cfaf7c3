"""The shape of a body, as points on its collision surface, and the box that fits around them.

What the fingers will touch is the collision shape, which can differ from the picture, so grasps are found on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rlft_tasks.planners import se3

SPACING = 0.002  # metres between neighbouring surface points


@dataclass(frozen=True)
class Box:
    """A box with one face horizontal."""

    centre: np.ndarray  # `[3]`, metres
    axes: np.ndarray  # `[3, 3]`, columns: the longer horizontal edge, the shorter one, up
    half: np.ndarray  # `[3]`, half of each edge, metres


def triangle_points(corners: np.ndarray, spacing: float = SPACING) -> np.ndarray:
    """Points on triangles, corners and edges included, no further apart than ``spacing`` along each edge.

    Args:
        corners: ``[n, 3, 3]``, metres: triangle, corner, coordinate.
        spacing: metres.

    Returns:
        ``[m, 3]``.
    """
    corners = np.asarray(corners, dtype=np.float64)
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    counts = np.maximum(1, np.ceil(longest / spacing).astype(int))
    out = []
    for count in np.unique(counts):
        i, j = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
        inside = i + j <= count
        weights = np.stack([i[inside], j[inside], count - i[inside] - j[inside]], axis=1) / count
        out.append(np.einsum("wc,ncx->nwx", weights, corners[counts == count]).reshape(-1, 3))
    return np.concatenate(out)


def thinned(points: np.ndarray, cell: float = SPACING) -> np.ndarray:
    """One of the points ``[n, 3]`` in each cubic cell that holds some, in the order of the points."""
    _, first = np.unique(np.floor(points / cell).astype(np.int64), axis=0, return_index=True)
    return points[np.sort(first)]


def horizontal_box(points: np.ndarray) -> Box:
    """The box of least volume around points, among those with one face horizontal.

    Its footprint is the least rectangle around the points seen from above, one side of which lies along an edge of
    their convex hull (Freeman and Shapira 1975).

    Args:
        points: ``[n, 3]``, metres, not all on one line when seen from above.
    """
    from scipy.spatial import ConvexHull

    flat = points[:, :2][ConvexHull(points[:, :2]).vertices]
    edges = np.roll(flat, -1, axis=0) - flat
    angles = np.unique(np.mod(np.arctan2(edges[:, 1], edges[:, 0]), np.pi / 2))
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    along, across = flat @ directions.T, flat @ (directions[:, ::-1] * [-1.0, 1.0]).T
    best = int(np.argmin(np.ptp(along, axis=0) * np.ptp(across, axis=0)))
    first = np.array([*directions[best], 0.0])
    second = np.array([-first[1], first[0], 0.0])
    if np.ptp(across[:, best]) > np.ptp(along[:, best]):
        first, second = second, -first
    axes = np.stack([first, second, [0.0, 0.0, 1.0]], axis=1)
    local = points @ axes
    low, high = local.min(axis=0), local.max(axis=0)
    return Box(axes @ (low + high) / 2, axes, (high - low) / 2)


class Body:
    """An actor's collision surface and centre of mass, fixed to the actor.

    Args:
        actor: a ManiSkill actor with convex or box collision shapes, in an environment with one scene.
    """

    def __init__(self, actor: Any) -> None:
        import sapien

        self._actor = actor
        physics = actor._objs[0].find_component_by_type(sapien.physx.PhysxRigidBaseComponent)
        self._points = thinned(np.concatenate([_shape_points(shape) for shape in physics.get_collision_shapes()]))
        self._centre: np.ndarray = np.zeros(3)
        if isinstance(physics, sapien.physx.PhysxRigidBodyComponent):
            self._centre = np.asarray(physics.cmass_local_pose.p, dtype=np.float64)

    def pose(self) -> np.ndarray:
        """The actor's pose in the world, now."""
        return se3.from_raw(self._actor.pose.raw_pose[0].cpu().numpy())

    def points(self) -> np.ndarray:
        """Its surface in the world, now: ``[n, 3]``, metres."""
        T = self.pose()
        return self._points @ T[:3, :3].T + T[:3, 3]

    def centre_of_mass(self) -> np.ndarray:
        """``[3]``, metres, world, now."""
        T = self.pose()
        return T[:3, :3] @ self._centre + T[:3, 3]


def _shape_points(shape: Any) -> np.ndarray:
    """Surface points of one collision shape in its body's frame, ``[n, 3]``."""
    if hasattr(shape, "triangles"):
        corners = (np.asarray(shape.vertices, dtype=np.float64) * shape.scale)[np.asarray(shape.triangles, dtype=int)]
    else:
        import trimesh

        box = trimesh.creation.box(extents=2 * np.asarray(shape.half_size, dtype=np.float64))
        corners = np.asarray(box.triangles)
    T = shape.local_pose.to_transformation_matrix().astype(np.float64)
    return triangle_points(corners) @ T[:3, :3].T + T[:3, 3]
