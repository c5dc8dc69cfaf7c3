"""Where two parallel fingers can hold a body from above: candidates by yaw and place, each with a cost.

The first candidates close across the faces of the body's oriented box; a search over further yaws, and over places
along the body, follows. Each is checked against the surface between the fingers: whether it fits between them,
whether they can press on it, and whether the two contacts face each other.

Lengths are metres. ``z`` is up.
"""

from dataclasses import dataclass

import numpy as np

from rlft_tasks.planners import se3
from rlft_tasks.planners.shapes import shorter_side

YAWS = 12  # over half a turn: every 15 degrees
PLACES = np.arange(-4, 5) * 0.01  # metres along the body from its centre of mass
CONTACT_DEPTH = 0.002  # metres: surface this near to the outermost is what a finger presses on
FLOOR_CLEARANCE = 0.004  # metres between fingertips and what the body lies on
SIDE_CLEARANCE = 0.002  # metres on each side of the body while the open fingers come down
OTHER_CLEARANCE = 0.003  # metres between fingertips and another body below them
OFF_CENTRE = 20.0  # cost per metre from the centre of mass: the body would swing
ASKEW = 4.0  # cost of contacts that miss each other, per width
UNDERCUT = 400.0  # cost per metre that the body is wider just below the fingertips: it would slip down out of them
UNDERCUT_DEPTH = 0.012  # metres below the fingertips
TURNING = 0.15  # cost per radian that the tool has to turn
PRESS = 0.0015  # metres that the fingers could still close at the contact: below it there is hardly any force


@dataclass(frozen=True)
class Gripper:
    """Two parallel fingers, as seen from the tool frame: x points from palm to fingertips, y is where they close."""

    opening: float  # free distance between the open fingers
    closed: float  # distance between the closed fingers
    finger_width: float  # of a finger, across the closing direction and the approach
    finger_thickness: float  # of a finger, along the closing direction
    reach: float  # from the tool's origin to the fingertips, along the approach
    depth: float  # from the fingertips to the palm

    def down(self, closing: np.ndarray) -> np.ndarray:
        """The tool's rotation ``[3, 3]`` that points down and closes along a horizontal unit vector ``[3]``."""
        down = np.array([0.0, 0.0, -1.0])
        return np.stack([down, closing, np.cross(down, closing)], axis=1)


WIDOWX = Gripper(opening=0.054, closed=0.011, finger_width=0.027, finger_thickness=0.018, reach=0.0156, depth=0.045)
"""The WidowX 250S, measured on its collision meshes (tests/contract/test_widowx_planner.py)."""


@dataclass(frozen=True)
class Grasp:
    """One way to hold a body."""

    tool: np.ndarray  # pose of the tool frame in the world, fingers around the body
    width: float  # of the body between the fingers
    cost: float  # less is better


def closing_directions(points: np.ndarray) -> np.ndarray:
    """Horizontal unit vectors ``[2 + YAWS, 3]`` to close along for a surface ``[n, 3]``.

    The shorter edge of the oriented box, its longer one, then multiples of 180/YAWS degrees from the first.
    """
    x, y = shorter_side(points)
    first = np.arctan2(y, x)
    angles = np.concatenate([[first, first + np.pi / 2], first + np.arange(YAWS) * np.pi / YAWS])
    return np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)


def find_grasps(
    gripper: Gripper, points: np.ndarray, centre_of_mass: np.ndarray, others: np.ndarray, tool: np.ndarray, floor: float
) -> list[Grasp]:
    """All grasps from above that a body allows, the best first. Everything is in world coordinates.

    The body has surface ``points`` ``[n, 3]`` and a centre of mass ``[3]``, and lies at the height ``floor``. The
    fingers must not touch ``others``, surfaces ``[m, 3]``; what needs less turning of the tool's pose now is better.
    """
    out = []
    for closing in closing_directions(points):
        along = np.array([-closing[1], closing[0], 0.0])
        frame = np.stack([closing, along, [0.0, 0.0, 1.0]], axis=1)
        local, around = (points - centre_of_mass) @ frame, (others - centre_of_mass) @ frame
        level = floor - centre_of_mass[2]
        rotations = [gripper.down(sign * closing) for sign in (1.0, -1.0)]
        for place in PLACES:
            near, close = (np.abs(x[:, 1] - place) <= gripper.finger_width / 2 for x in (local, around))
            found = check_place(gripper, local[near], around[close], level) if near.sum() > 2 else None
            if found is None:
                continue
            position = centre_of_mass + frame @ [found.middle, place, found.tip + gripper.reach]
            cost = found.cost + OFF_CENTRE * abs(place)
            for rotation in rotations:
                cosine = (np.trace(rotation.T @ tool[:3, :3]) - 1) / 2
                turning = TURNING * float(np.arccos(np.clip(cosine, -1.0, 1.0)))
                out.append(Grasp(se3.pose(position, rotation), found.width, cost + turning))
    return sorted(out, key=lambda grasp: grasp.cost)


@dataclass(frozen=True)
class Place:
    """Where the fingers are to close."""

    middle: float  # coordinate between the contacts, along the closing direction
    tip: float  # height of the fingertips
    width: float  # of the body between the fingers
    cost: float  # less is better


def check_place(gripper: Gripper, body: np.ndarray, others: np.ndarray, floor: float) -> Place | None:
    """Check one place of the fingers; None where the body does not fit between them, or they cannot press on it.

    ``body`` is its surface in the fingers' breadth, ``[n, 3]``: along the closing direction, across it, and up; so is
    what must not be touched, ``others``, ``[m, 3]``, and the height of what the body lies on, ``floor``.
    """
    middle, top = float(body[:, 0].min() + body[:, 0].max()) / 2, float(body[:, 2].max())
    swept = np.abs(others[:, 0] - middle) <= gripper.opening / 2 + gripper.finger_thickness
    below = float(others[swept, 2].max(initial=-np.inf))
    tip = max(floor + FLOOR_CLEARANCE, top - gripper.depth, below + OTHER_CLEARANCE)
    held = body[body[:, 2] >= tip]
    if len(held) < 3:
        return None
    low, high = float(held[:, 0].min()), float(held[:, 0].max())
    width = high - low
    press, play = (width - gripper.closed) / 2, (gripper.opening - width) / 2
    if play < SIDE_CLEARANCE or press < PRESS:
        return None
    overlap, gap = _facing(held[held[:, 0] <= low + CONTACT_DEPTH], held[held[:, 0] >= high - CONTACT_DEPTH])
    cost = ASKEW * gap / width + _short(overlap, 0.01, 0.6) + _short(press, 0.005, 0.8)
    undercut = float(np.ptp(body[body[:, 2] >= tip - UNDERCUT_DEPTH, 0])) - width
    cost += UNDERCUT * max(0.0, undercut - CONTACT_DEPTH) + _short(play, 0.006, 0.8) + _short(top - tip, 0.018, 1.5)
    return Place((low + high) / 2, tip, width, cost)


def _short(value: float, wanted: float, weight: float) -> float:
    """The cost of having less of something than is wanted: 0 to ``weight``, linear."""
    return weight * float(np.clip(1.0 - value / wanted, 0.0, 1.0))


def _facing(left: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """The smaller overlap of contacts ``[n, 3]`` and ``[m, 3]``, across and up, and how far they miss: one is 0."""
    low = np.maximum(left[:, 1:].min(axis=0), right[:, 1:].min(axis=0))
    high = np.minimum(left[:, 1:].max(axis=0), right[:, 1:].max(axis=0))
    return float(max(0.0, (high - low).min())), float(np.linalg.norm(np.maximum(0.0, low - high)))
