"""The WidowX plan: put one object onto another.

The plan looks again before every part of it, and starts over where the object slipped out of the fingers.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rlft_envs.errors import PlanError
from rlft_envs.maniskill.env import ManiSkillEnv
from rlft_tasks.planners import se3
from rlft_tasks.planners.control import CLOSED, OPEN
from rlft_tasks.planners.grasps import WIDOWX, Grasp, find_grasps
from rlft_tasks.planners.oracle import Move, Oracle, Stay, Step, View
from rlft_tasks.planners.shapes import Body
from rlft_tasks.planners.tabletop import lifted

APPROACH = 0.05  # metres above the grasp where the fingers start to come down
CARRY = 0.03  # metres of free height under the object while it is carried
DROP = 0.01  # metres that the object falls: it must not touch the target before it is let go
CLOSING_STEPS = 4  # at most; the fingers close with a lag of one control period
RELEASE_STEPS = 5
TRIES = 4
CANDIDATES = 60  # grasps whose reach is checked
SHIFTED = 0.01  # metres that the object may move while the fingers come down
SAME_PLACE, SAME_DIRECTION = 0.008, 0.94  # metres and cosine: grasps nearer than this are one and the same
LOST = 0.025  # metres that the object may move in the fingers before it counts as dropped


class Scene:
    """What is put where in an unwrapped WidowX task: one of ManiSkill's, or of our family."""

    def __init__(self, env: Any) -> None:
        self.source, self.target = Body(env.objs[env.source_obj_name]), Body(env.objs[env.target_obj_name])
        # Bodies that the fingers must not touch; `extra` is the family's distractor.
        self.others = (self.target, *(Body(env.objs[name]) for name in env.objs if name == "extra"))


def put_on(view: View) -> Iterator[Step]:
    """Grasp the source from above, carry it over the target, lower it and let go."""
    scene = Scene(view.env)
    failed: list[np.ndarray] = []
    kind = "not_grasped"
    for _ in range(TRIES):
        view.success_counts = False
        grasp, approach = _best_grasp(view, scene, failed)
        start = scene.source.pose()
        yield approach
        if np.linalg.norm((scene.source.pose() - start)[:3, 3]) > SHIFTED:
            continue  # it rolled or was pushed meanwhile
        for step in range(CLOSING_STEPS):
            yield Stay(1, gripper=CLOSED)
            if step and view.env.agent.is_grasping(scene.source.actor)[0]:
                break
        held_at, failed_here = _in_tool(view, scene), se3.inverse(start) @ grasp.tool

        def lost(at: np.ndarray = held_at) -> bool:
            return bool(np.linalg.norm(_in_tool(view, scene) - at) > LOST)

        if _crowded(scene):  # lifting will push the target: see where it comes to lie
            yield Move(_carry(view, scene)[:1], tolerance=0.01, give_up_if=lost)
        if not lost():
            yield Move(_carry(view, scene), tolerance=0.006, give_up_if=lost)
        if lost():
            failed.append(failed_here)
            kind = "dropped" if scene.source.centre_of_mass()[2] - start[2, 3] > LOST else kind
        else:
            kind, view.success_counts = "executed_not_solved", True
            yield Stay(RELEASE_STEPS, gripper=OPEN)
        yield Move((lifted(view.tool(), APPROACH),), gripper=OPEN)
    raise PlanError(kind, f"given up after {TRIES} tries")


def _in_tool(view: View, scene: Scene) -> np.ndarray:
    """The source's centre of mass in the tool frame, ``[3]``."""
    T = se3.inverse(view.tool())
    return T[:3, :3] @ scene.source.centre_of_mass() + T[:3, 3]


def _best_grasp(view: View, scene: Scene, failed: Sequence[np.ndarray]) -> tuple[Grasp, Move]:
    """The best grasp in reach that is not like a failed one (tool poses in the source's frame), and the way to it."""
    points = scene.source.points()
    others = np.concatenate([body.points() for body in scene.others])
    floor = float(min(points[:, 2].min(), others[:, 2].min()))
    grasps = find_grasps(WIDOWX, points, scene.source.centre_of_mass(), others, view.tool(), floor)
    if not grasps:
        raise PlanError("no_plan", "the object fits between the fingers in no direction, or is too thin to press on")
    seen = [scene.source.pose() @ T for T in failed]
    fresh = [grasp for grasp in grasps if not any(_alike(grasp.tool, T) for T in seen)] or grasps
    for grasp in fresh[:CANDIDATES]:
        move = Move((lifted(grasp.tool, APPROACH), grasp.tool), gripper=OPEN, tolerance=0.004)
        if view.reaches(move):
            return grasp, move
    raise PlanError("ik", f"none of the best {min(len(fresh), CANDIDATES)} of {len(fresh)} grasps is in reach")


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two tool poses hold the same place in nearly the same direction, either finger first."""
    closing = abs(float(one[:3, 1] @ other[:3, 1]))
    return bool(np.linalg.norm((one - other)[:3, 3]) < SAME_PLACE and closing > SAME_DIRECTION)


def _crowded(scene: Scene) -> bool:
    """Whether the upright boxes around source and target overlap, seen from above."""
    source, target = scene.source.points()[:, :2], scene.target.points()[:, :2]
    return bool((source.min(axis=0) < target.max(axis=0)).all() and (target.min(axis=0) < source.max(axis=0)).all())


def _carry(view: View, scene: Scene) -> tuple[np.ndarray, ...]:
    """Tool poses: straight up, over the target, down to just above it."""
    tool, points, goal = view.tool(), scene.source.points(), scene.target.points()
    centre = (goal.min(axis=0) + goal.max(axis=0)) / 2
    move = (centre - scene.source.centre_of_mass()) * [1.0, 1.0, 0.0]
    low, high = (points + move).min(axis=0) - 0.005, (points + move).max(axis=0) + 0.005
    under = goal[((goal >= low) & (goal <= high))[:, :2].all(axis=1)]
    surface = float(under[:, 2].max() if len(under) else goal[:, 2].max())
    up = max(CARRY + float(goal[:, 2].max()) - points[:, 2].min(), 0.0)
    move[2] = surface + DROP - points[:, 2].min()
    place = se3.pose(tool[:3, 3] + move, tool[:3, :3])
    over = se3.pose(place[:3, 3] * [1.0, 1.0, 0.0] + [0.0, 0.0, tool[2, 3] + up], tool[:3, :3])
    return lifted(tool, up), over, place


def put_on_expert(env: ManiSkillEnv) -> Oracle:
    """Who demonstrates the WidowX tasks."""
    return Oracle(env.unwrapped, put_on, velocity=1.5, acceleration=3.0)  # episodes as long as the published ones
