"""The plan for MyPush: come down on the cube's right side and push it to the goal's centre."""

import numpy as np

from rlft_tasks.planners import se3
from rlft_tasks.planners.control import CLOSED
from rlft_tasks.planners.oracle import Move, Oracle


def plan(view):
    cube, goal, turn = view.pose(view.env.obj)[:3, 3], view.pose(view.env.goal_region)[:3, 3], view.tool()[:3, :3]
    way = np.array([0.0, 1.0, 0.0])
    behind = cube - 0.07 * way
    end = np.array([cube[0], goal[1] - 0.04, cube[2]])
    way_points = (behind + np.array([0.0, 0.0, 0.06]), behind, end)
    yield Move(tuple(se3.pose(p, turn) for p in way_points), gripper=CLOSED, blend=0.02)


def expert(env):
    return Oracle(env.unwrapped, plan, gripper_moves=False)
