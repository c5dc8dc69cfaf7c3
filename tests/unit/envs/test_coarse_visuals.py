import numpy as np
import pytest

from rlft_envs.errors import EnvSetupError
from rlft_envs.maniskill.coarse_visuals import cluster, coarsen_robot


def sphere(rings=60):
    """A unit sphere as unshared triangles: every triangle has its own three vertices."""
    u, v = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings), indexing="ij")
    grid = np.stack([np.sin(u) * np.cos(v), np.sin(u) * np.sin(v), np.cos(u)], axis=-1)
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    corners = np.concatenate([np.stack([a, b, c], 2).reshape(-1, 3), np.stack([a, c, d], 2).reshape(-1, 3)])
    return corners, corners.copy(), np.arange(len(corners)).reshape(-1, 3)


def test_fewer_triangles_keep_the_shape():
    vertices, normals, triangles = sphere()
    v, n, t = cluster(vertices, normals, triangles, 0.2)
    assert len(t) < len(triangles) / 5
    assert np.abs(np.linalg.norm(v, axis=1) - 1).max() < 0.03
    assert np.allclose(np.linalg.norm(n, axis=1), 1, atol=1e-5)
    assert (np.sum(n * v, axis=1) > 0.9).all()
    area = 0.5 * np.linalg.norm(np.cross(v[t[:, 1]] - v[t[:, 0]], v[t[:, 2]] - v[t[:, 0]]), axis=1).sum()
    assert area == pytest.approx(4 * np.pi, rel=0.12)


def test_what_is_smaller_than_a_cell_vanishes_and_nothing_degenerate_is_left():
    vertices, normals, triangles = sphere(12)
    _, _, t = cluster(vertices * 1e-3 + 0.05, normals, triangles, 0.1)
    assert len(t) <= 20  # at most what spans the six directions
    v, _, t = cluster(vertices, normals, triangles, 0.3)
    assert t.max() < len(v)
    assert all(len(set(face)) == 3 for face in t.tolist())
    assert len({tuple(sorted(face)) for face in t.tolist()}) == len(t)


def test_sharp_edges_are_kept():
    # Two squares that meet at a right angle: the shared edge keeps one vertex per face.
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]], dtype=float)
    normals = np.array([[0, 0, 1]] * 3 + [[0, 1, 0]] * 3, dtype=float)
    v, n, t = cluster(vertices, normals, np.array([[0, 1, 2], [3, 4, 5]]), 0.1)
    assert len(v) == 6
    assert {tuple(row) for row in n.tolist()} == {(0.0, 0.0, 1.0), (0.0, 1.0, 0.0)}
    assert len(t) == 2


@pytest.mark.parametrize("cell", [0.0, -0.01, 0.2])
def test_a_cell_out_of_range_is_refused(cell):
    with pytest.raises(EnvSetupError, match="visual_cell"):
        coarsen_robot(None, cell)
