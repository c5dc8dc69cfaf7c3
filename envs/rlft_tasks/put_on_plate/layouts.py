"""Where things stand before an episode, by number. Pure numpy.

Places are points of a grid around (-0.16, 0) on the table, 0.03 m apart; robot offsets are a lattice. Thresholds are
compared in the published arithmetic, because two of them (0.15 m) fall on distances of the grid.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import pi

import numpy as np

from rlft_tasks.put_on_plate.variants import Values

CENTRE = np.array([-0.16, 0.0])
HALF_EDGE = np.array([0.075, 0.075])
CLEAR = 0.070  # metres between the centres of an object and a plate, at least
FAR = 0.15  # metres between two objects, or two plates
GRID = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
OUTER = (-0.2, *GRID, 1.2)
YAWS = (0.0, pi / 4, pi / 2, 3 * pi / 4)
RING_YAWS = (-pi / 8, -3 * pi / 8, -5 * pi / 8, -7 * pi / 8)
QPOS_STEPS = (-0.15, -0.08, 0.0, 0.08, 0.15)
WRIST_STEPS = (-0.6, -0.3, 0.0, 0.3, 0.6)
QPOS_SUM = 0.25  # radians that shoulder and elbow may be off together


@dataclass(frozen=True)
class Layout:
    """Numbered places and headings."""

    xy: np.ndarray  # float64 `[n, k, 2]`, metres: the object, the plate, and with k = 3 a third thing
    heights: tuple[float, ...]  # k heights that they are dropped from, metres
    yaws: tuple[float, ...]  # headings of the object, radians
    places: Values  # indices into `xy`: the usual ones first; the rest only a `ring` layout has
    headings: Values  # indices into `yaws`, likewise


@lru_cache
def layout(name: str) -> Layout:
    """``pairs`` (784), ``ring`` (784 and 628 further out, with other headings), ``two_objects`` or ``two_plates``.

    In these the third is an object, at least 0.15 m from the first, or a plate, as far from the second.
    """
    grid, yaws = _points(product(GRID, GRID)), list(YAWS)
    distances = _distances(grid)
    near, far = distances > CLEAR, distances > FAR
    xy = grid[np.argwhere(near)]
    usual, heights = len(xy), [0.95, 0.95]
    if name == "ring":
        outer = _points(p for p in product(OUTER, OUTER) if {*p} & {-0.2, 1.2})
        xy = np.concatenate([xy, outer[np.argwhere(_distances(outer) > CLEAR)]])
        yaws += RING_YAWS
    elif name != "pairs":
        from_object, from_plate, heights = {
            "two_objects": (far, near, [0.95, 0.92, 1.0]),
            "two_plates": (near, far, [1.0, 0.92, 0.96]),
        }[name]
        xy = grid[np.argwhere(near[:, :, None] & from_object[:, None, :] & from_plate[None, :, :])]
        usual = len(xy)
    return Layout(xy, tuple(heights), tuple(yaws), Values(usual, len(xy)), Values(len(YAWS), len(yaws)))


@lru_cache
def qpos_offsets() -> np.ndarray:
    """Offsets of the six arm joints, radians, float64 ``[14376, 6]``; the first is none."""
    lattice = product(*[QPOS_STEPS] * 5, WRIST_STEPS)
    return np.array([(0.0,) * 6, *(q for q in lattice if abs(q[1] + q[2]) <= QPOS_SUM)])


def _points(unit: Iterable[tuple[float, float]]) -> np.ndarray:
    return (np.array(list(unit)) * 2 - 1) * HALF_EDGE + CENTRE


def _distances(points: np.ndarray) -> np.ndarray:
    """Between all of them, ``[n, n]``, metres."""
    return np.linalg.norm(points[None] - points[:, None], axis=-1)
