from itertools import pairwise

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from rlft_tasks.planners import se3


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
