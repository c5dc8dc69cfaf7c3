"""The shape of a body, as points on its collision surface, and the box that fits around them.

What the fingers will touch is the collision shape, which can differ from what is seen, so grasps are found on it.
"""

from typing import Any

import numpy as np

from rlft_tasks.planners import se3

SPACING = 0.002  # metres between neighbouring surface points


def triangle_points(corners: np.ndarray, spacing: float = SPACING) -> np.ndarray:
    """Points ``[m, 3]`` on triangles ``[n, 3, 3]`` (triangle, corner, coordinate), all in metres.

    Corners and edges are included, and points are no further apart than ``spacing`` along each edge.
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


def shorter_side(points: np.ndarray) -> np.ndarray:
    """Unit vector ``[2]`` along the shorter side of the least rectangle around points ``[n, 3]`` seen from above.

    One side of that rectangle lies along an edge of their convex hull (Freeman and Shapira 1975). Seen from above, the
    points must not all lie on one line.
    """
    from scipy.spatial import ConvexHull

    flat = points[:, :2][ConvexHull(points[:, :2]).vertices]
    edges = np.roll(flat, -1, axis=0) - flat
    angles = np.unique(np.mod(np.arctan2(edges[:, 1], edges[:, 0]), np.pi / 2))
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    normals = directions[:, ::-1] * [-1.0, 1.0]
    length, width = np.ptp(flat @ directions.T, axis=0), np.ptp(flat @ normals.T, axis=0)
    best = int(np.argmin(length * width))
    return -directions[best] if width[best] > length[best] else normals[best]


class Body:
    """The collision surface (convex shapes and boxes) and the centre of mass of an actor in the only scene."""

    def __init__(self, actor: Any) -> None:
        import sapien

        self.actor = actor
        physics = actor._objs[0].find_component_by_type(sapien.physx.PhysxRigidBaseComponent)
        self._points = thinned(np.concatenate([_shape_points(shape) for shape in physics.get_collision_shapes()]))
        moves = isinstance(physics, sapien.physx.PhysxRigidBodyComponent)
        self._centre = np.asarray(physics.cmass_local_pose.p if moves else np.zeros(3), dtype=np.float64)

    def pose(self) -> np.ndarray:
        """The actor's pose in the world, now."""
        return se3.from_raw(self.actor.pose.raw_pose[0].cpu().numpy())

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

        corners = np.asarray(trimesh.creation.box(2 * np.asarray(shape.half_size, dtype=np.float64)).triangles)
    T = shape.local_pose.to_transformation_matrix().astype(np.float64)
    return triangle_points(corners) @ T[:3, :3].T + T[:3, 3]
