"""Shapes and grasps against brute force and bodies whose answer is known."""

import dataclasses

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from rlft_tasks.planners.grasps import FLOOR_CLEARANCE, WIDOWX, check_place, closing_directions, find_grasps
from rlft_tasks.planners.shapes import shorter_side, thinned, triangle_points

NOTHING = np.zeros((0, 3))
TOOL = np.eye(4)
TOOL[:3, :3] = WIDOWX.down(np.array([0.0, 1.0, 0.0]))


def surface(mesh, yaw=0.0, at=(0.0, 0.0)):
    """Points on a mesh that stands on z = 0, turned and moved."""
    corners = np.asarray(mesh.triangles) - [0.0, 0.0, mesh.bounds[0, 2]]
    return thinned(triangle_points(corners)) @ Rotation.from_rotvec([0, 0, yaw]).as_matrix().T + [*at, 0.0]


def box(x, y, z, **where):
    return surface(trimesh.creation.box(extents=(x, y, z)), **where)


def grasps(points, others=NOTHING, **changes):
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    return find_grasps(dataclasses.replace(WIDOWX, **changes), points, centre, others, TOOL, 0.0)


def test_triangles_are_covered_without_gaps():
    corners = np.array([[[0, 0, 0], [0.03, 0, 0], [0, 0.02, 0.01]], [[0, 0, 0], [0.001, 0, 0], [0, 0, 0.001]]])
    points = triangle_points(corners, spacing=0.002)
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=(2, 500))
    outside = a + b > 1
    a[outside], b[outside] = 1 - a[outside], 1 - b[outside]
    inside = np.outer(a, corners[0, 1]) + np.outer(b, corners[0, 2])
    distance = np.linalg.norm(inside[:, None] - points[None], axis=2).min(axis=1)
    assert distance.max() < 0.002
    for triangle in corners:
        for corner in triangle:
            assert np.linalg.norm(points - corner, axis=1).min() < 1e-12


def test_thinning_keeps_a_point_of_every_cell():
    points = np.random.default_rng(1).uniform(size=(500, 3))
    kept = thinned(points, 0.2)
    cells = {tuple(c) for c in np.floor(points / 0.2).astype(int)}
    assert len(kept) == len(cells) == len({tuple(c) for c in np.floor(kept / 0.2).astype(int)})


@pytest.mark.parametrize("yaw", [0.0, 0.3, 1.2, 2.9])
def test_the_shorter_side_of_a_turned_box_is_that_of_the_box(yaw):
    x, y = shorter_side(box(0.08, 0.03, 0.05, yaw=yaw, at=(0.2, -0.1)))
    assert x * np.cos(yaw) + y * np.sin(yaw) == pytest.approx(0.0, abs=1e-9)
    assert np.hypot(x, y) == pytest.approx(1.0)


def test_no_turned_rectangle_is_smaller():
    def extents(angle):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return np.ptp(points[:, :2] @ turn, axis=0)

    points = np.random.default_rng(2).normal(size=(60, 3)) * [0.05, 0.02, 0.03]
    x, y = shorter_side(points)
    short, long = extents(np.arctan2(y, x))
    assert short <= long
    for angle in np.linspace(0, np.pi / 2, 721):
        assert np.prod(extents(angle)) >= short * long - 1e-12


def test_directions_begin_across_the_box_and_cover_half_a_turn():
    found = closing_directions(box(0.08, 0.03, 0.05, yaw=0.4))
    assert abs(found[0] @ [np.cos(0.4), np.sin(0.4), 0.0]) < 1e-9  # across the longer edge
    assert abs(found[1] @ found[0]) < 1e-9
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0)
    wanted = np.stack([np.cos(a := np.linspace(0, np.pi, 50)), np.sin(a), 0 * a], axis=1)
    assert np.abs(wanted @ found.T).max(axis=1).min() > np.cos(np.radians(7.6))


def test_the_tool_points_down_and_closes_where_told():
    closing = np.array([0.6, -0.8, 0.0])
    R = WIDOWX.down(closing)
    assert np.allclose(R[:, 0], [0, 0, -1])
    assert np.allclose(R[:, 1], closing)
    assert np.allclose(R.T @ R, np.eye(3))
    assert np.linalg.det(R) == pytest.approx(1.0)


@pytest.mark.parametrize("yaw", [0.0, 0.5, -1.1])
def test_a_bar_is_held_across_its_middle(yaw):
    best = grasps(box(0.12, 0.03, 0.03, yaw=yaw, at=(-0.2, 0.1)))[0]
    assert best.width == pytest.approx(0.03, abs=0.002)
    assert abs(best.tool[:3, 1] @ [-np.sin(yaw), np.cos(yaw), 0.0]) == pytest.approx(1.0, abs=1e-6)
    assert np.allclose(best.tool[:2, 3], [-0.2, 0.1], atol=0.002)
    assert best.tool[2, 3] == pytest.approx(FLOOR_CLEARANCE + WIDOWX.reach)


def test_bodies_too_wide_or_too_thin_cannot_be_held():
    for radius in (0.04, 0.004):
        assert grasps(surface(trimesh.creation.cylinder(radius=radius, height=0.04))) == []


def test_a_tall_body_is_held_no_deeper_than_the_fingers_reach():
    best = grasps(surface(trimesh.creation.cylinder(radius=0.017, height=0.09)))[0]
    assert best.tool[2, 3] - WIDOWX.reach == pytest.approx(0.09 - WIDOWX.depth, abs=1e-6)


def test_fingers_keep_off_a_neighbour():
    bar = box(0.12, 0.03, 0.03)
    wall = box(0.12, 0.01, 0.06, at=(0.0, 0.035))  # beside the bar, where a finger would come down
    free, crowded = grasps(bar), grasps(bar, others=wall)
    assert free[0].tool[2, 3] < 0.06
    for grasp in crowded:
        assert grasp.tool[2, 3] - WIDOWX.reach > 0.06 - 0.002 or abs(grasp.tool[1, 1]) < 0.99


def test_a_sphere_is_not_held_above_its_middle():
    ball = surface(trimesh.creation.icosphere(radius=0.02))
    plate = box(0.1, 0.1, 0.015)
    low, high = grasps(ball)[0], grasps(ball, others=plate)
    assert low.tool[2, 3] - WIDOWX.reach < 0.02
    assert all(grasp.cost > low.cost for grasp in high)


def test_contacts_that_miss_each_other_cost_more():
    square = np.array([[x, y, z] for x in (-0.015, 0.015) for y in (-0.01, 0.0, 0.01) for z in (0.01, 0.02, 0.03)])
    askew = square.copy()
    askew[:, 1] += np.sign(askew[:, 0]) * 0.02  # one side forward, the other back
    straight = check_place(WIDOWX, square, NOTHING, 0.0)
    crooked = check_place(WIDOWX, askew, NOTHING, 0.0)
    assert straight is not None
    assert crooked is not None
    assert crooked.cost > straight.cost + 1.0
    assert (straight.middle, straight.width) == pytest.approx((0.0, 0.03))
