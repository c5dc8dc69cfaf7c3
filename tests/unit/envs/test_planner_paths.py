from itertools import pairwise

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from rlft_tasks.planners import se3
from rlft_tasks.planners.paths import STEP_METRES, polyline, time_path


def at(x, y, z):
    return se3.pose(np.array([x, y, z], dtype=float), np.eye(3))


def test_a_polyline_is_dense_and_keeps_its_corners():
    corner = at(0.1, 0, 0)
    samples = np.array([T[:3, 3] for T in polyline([at(0, 0, 0), corner, at(0.1, 0.05, 0)])])
    gaps = np.linalg.norm(np.diff(samples, axis=0), axis=1)
    assert gaps.max() <= STEP_METRES + 1e-9
    assert np.abs(samples - corner[:3, 3]).sum(axis=1).min() < 1e-9
    assert np.allclose(samples[[0, -1]], [[0, 0, 0], [0.1, 0.05, 0]])


def test_blending_cuts_the_corner_but_not_the_ends():
    ends = [at(0, 0, 0), at(0.1, 0, 0), at(0.1, 0.1, 0)]
    samples = np.array([T[:3, 3] for T in polyline(ends, blend=0.025)])
    distance = np.linalg.norm(samples - ends[1][:3, 3], axis=1)
    assert distance.min() >= 0.025 - 1e-9
    assert np.allclose(samples[[0, -1]], [[0, 0, 0], [0.1, 0.1, 0]])


def test_blending_never_eats_a_short_leg():
    samples = polyline([at(0, 0, 0), at(0.03, 0, 0), at(0.03, 0.03, 0)], blend=0.5)
    assert len(samples) >= 3


@pytest.mark.parametrize(("velocity", "acceleration"), [(1.0, 5.0), (0.5, 1.0), (3.0, 2.0)])
def test_a_time_law_respects_its_limits_and_uses_them(velocity, acceleration):
    samples = np.stack([np.linspace(0, 1.0, 30), np.sin(np.linspace(0, 2, 30))], axis=1)
    path = time_path(samples, velocity, acceleration)
    t = np.linspace(0, path.duration, 2000)
    q = np.stack([path.joints(x) for x in t])
    speed = np.gradient(q, t, axis=0)
    assert np.allclose(q[0], samples[0], atol=1e-6)
    assert np.allclose(q[-1], samples[-1], atol=1e-4)
    assert np.abs(speed).max() <= velocity * 1.02
    assert np.abs(np.gradient(speed, t, axis=0)[5:-5]).max() <= acceleration * 1.15
    assert np.abs(speed[[0, -1]]).max() < 0.05 * velocity
    # Bang-bang with saturation is the fastest for one joint: within a few per cent of the slower joint's bound.
    reach = np.abs(np.diff(samples, axis=0)).sum(axis=0).max()
    ramp = velocity / acceleration  # seconds
    ideal = reach / velocity + ramp if reach > velocity * ramp else 2 * np.sqrt(reach / acceleration)
    assert ideal * 0.98 <= path.duration <= ideal * 1.5


def test_times_beyond_the_ends_are_clamped():
    path = time_path(np.array([[0.0], [0.2], [0.5]]), 1.0, 4.0)
    assert path.joints(-1.0) == pytest.approx([0.0])
    assert path.joints(path.duration + 9) == pytest.approx([0.5], abs=1e-4)


def test_a_path_that_goes_nowhere_takes_no_time():
    path = time_path(np.zeros((5, 7)), 1.0, 4.0)
    assert path.duration == 0.0
    assert np.array_equal(path.joints(0.3), np.zeros(7))


def random_pose(rng, angle=None):
    w = rng.normal(size=3)
    w *= (rng.uniform(0, 3) if angle is None else angle) / np.linalg.norm(w)
    return se3.pose(rng.normal(size=3), Rotation.from_rotvec(w).as_matrix())


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 0.3, 3.0, np.pi - 1e-6])
def test_the_matrix_exponential_inverts_the_logarithm(angle):
    T = random_pose(np.random.default_rng(1), angle)
    v, w = np.split(se3.log(T), 2)
    twist = np.zeros((4, 4))
    twist[:3, :3], twist[:3, 3] = np.cross(w, np.eye(3)).T, v
    assert np.allclose(expm(twist), T, atol=1e-7)


def test_inverse_and_raw_order():
    T = se3.from_raw(np.array([1.0, 2.0, 3.0, np.cos(0.2), 0.0, 0.0, np.sin(0.2)]))
    assert np.allclose(T[:3, 3], [1, 2, 3])
    assert np.allclose(T[:3, :3], Rotation.from_euler("z", 0.4).as_matrix())
    assert np.allclose(se3.inverse(T) @ T, np.eye(4))


def screw(start, end, fraction):
    return start @ se3.exp(fraction * se3.log(se3.inverse(start) @ end))


def test_a_screw_without_turning_is_a_straight_line():
    a, b = np.eye(4), np.eye(4)
    b[:3, 3] = [0.4, -0.2, 0.6]
    assert np.allclose(screw(a, b, 0.25)[:3, 3], [0.1, -0.05, 0.15])


def test_a_screw_has_its_ends_and_a_constant_rate():
    rng = np.random.default_rng(2)
    a, b = random_pose(rng), random_pose(rng)
    at = [screw(a, b, f) for f in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert np.allclose(at[0], a)
    assert np.allclose(at[-1], b)
    rates = [se3.log(se3.inverse(x) @ y) for x, y in pairwise(at)]
    assert np.allclose(rates, rates[0])
