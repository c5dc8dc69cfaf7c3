"""Coarser visual meshes of the robot: on a software renderer, its triangles are nearly all of a small image's cost.

ManiSkill's Panda has 135,000 triangles, many of them smaller than a pixel of a small image by far. Vertices that
share a cell of a regular grid are merged (vertex clustering, Rossignac and Borrel 1993), separately for each of the
six main normal directions, so that edges stay edges. Collision shapes, and so the physics, are not touched.
"""

import logging
from typing import Any

import numpy as np

from rlft_envs.errors import EnvSetupError

log = logging.getLogger(__name__)

MAX_CELL = 0.05  # metres; beyond, nothing of a gripper is left


def cluster(
    vertices: np.ndarray, normals: np.ndarray, triangles: np.ndarray, cell: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge the vertices of a mesh that lie in one grid cell, with this edge, and look the same way.

    Takes vertices, metres, and their normals, float ``[n, 3]`` each, and triangles, indices ``[m, 3]``, of which those
    that shrink to nothing, or fall on another one, are dropped; gives the same (float32, float32, uint32).
    """
    axis = np.argmax(np.abs(normals), axis=1)
    side = normals[np.arange(len(normals)), axis] > 0
    key = np.column_stack([np.floor(vertices / cell).astype(np.int64), 2 * axis + side])
    group = np.unique(key, axis=0, return_inverse=True)[1].ravel()
    count = np.bincount(group)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(group, column) for column in values.T], axis=1) / count[:, None]

    merged = mean(normals)
    merged /= np.maximum(np.linalg.norm(merged, axis=1, keepdims=True), 1e-9)
    faces = group[triangles]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    return mean(vertices).astype(np.float32), merged.astype(np.float32), faces[np.sort(first)].astype(np.uint32)


def coarsen_robot(env: Any, cell: float) -> None:
    """Replace the visual meshes of a built environment's robot by coarser ones; until the task is rebuilt.

    A grid cell's edge, in metres, is not seen where it is about the size of a pixel at the robot's distance.
    """
    import sapien.render

    if not 0.0 < cell <= MAX_CELL:
        raise EnvSetupError(f"env.make_kwargs.visual_cell = {cell!r}; allowed: above 0, up to {MAX_CELL} metres")
    before = after = 0
    for link in env.agent.robot.links:
        for body in link._objs:
            old = body.entity.find_component_by_type(sapien.render.RenderBodyComponent)
            if old is not None:
                new = sapien.render.RenderBodyComponent()
                new.name = old.name
                for shape in old.render_shapes:
                    before += sum(len(part.triangles) for part in shape.parts)
                    after += _add_coarse(new, shape, cell)
                body.entity.remove_component(old)
                body.entity.add_component(new)
    log.info("visual meshes of the robot: %d triangles instead of %d (cells of %g m)", after, before, cell)


def _add_coarse(component: Any, shape: Any, cell: float) -> int:
    """Attach a coarser copy of a visual shape; returns its number of triangles."""
    import sapien.render

    count = 0
    for part in shape.parts:
        vertices, normals, triangles = part.vertices * shape.scale, part.get_vertex_normal(), part.triangles
        coordinates = part.get_vertex_uv()
        if part.material.base_color_texture is None:  # merged vertices have no texture coordinate of their own
            vertices, normals, triangles = cluster(vertices, normals, triangles, cell)
            coordinates = np.zeros((len(vertices), 2), dtype=np.float32)
        if len(triangles):
            coarse = sapien.render.RenderShapeTriangleMesh(vertices, triangles, normals, coordinates, part.material)
            coarse.local_pose = shape.local_pose
            component.attach(coarse)
            count += len(triangles)
    return count
