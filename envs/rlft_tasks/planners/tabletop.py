"""Plans for ManiSkill's tabletop tasks: what the tool has to do, as world poses.

A plan is a generator: it reads the scene when a step is asked for, so that what comes after a grasp can
start from where the object really is. Object and goal poses are read from the simulator, never assumed, so a
plan also holds where the task's spawn region or goal is changed.
"""

from collections.abc import Iterator

import numpy as np

from rlft_envs.errors import PlanError
from rlft_envs.maniskill.env import ManiSkillEnv
from rlft_tasks.planners import se3
from rlft_tasks.planners.control import CLOSED, OPEN
from rlft_tasks.planners.oracle import Move, Oracle, Stay, Step, View

UP = np.array([0.0, 0.0, 1.0])
PUSH_CLEARANCE = 0.03  # metres between the closed fingers' axis and the face before touching it
FINGER_HALF_WIDTH = 0.01  # metres, closed fingers along the pushing direction
PUSH_DEPTH = 0.025  # metres that the cube is pushed into the goal region
CROWDED = 0.1  # metres: another object nearer than this decides the grasp's yaw


def push(view: View) -> Iterator[Step]:
    """Push ``env.obj`` straight towards the centre of ``env.goal_region``, a little way into the region.

    No further, because the arm's reach ends within some goal regions. Serves pushing away and pulling
    alike: the fingers come down on the side that faces away from the goal.
    """
    env = view.env
    cube, goal = view.pose(env.obj), view.pose(env.goal_region)[:3, 3]
    way = (goal - cube[:3, 3]) * [1.0, 1.0, 0.0]
    distance = float(np.linalg.norm(way))
    if distance < 1e-6:
        raise PlanError("no_plan", "the cube already lies at the goal's centre")
    way = way / distance
    # how far the cube reaches towards the fingers
    reach = float(env.cube_half_size) * float(np.abs(cube[:3, :3].T @ way).sum())
    behind = cube[:3, 3] - (reach + FINGER_HALF_WIDTH + PUSH_CLEARANCE) * way
    travel = max(distance - float(env.goal_radius) + PUSH_DEPTH, 0.0)
    end = cube[:3, 3] + (travel - reach - FINGER_HALF_WIDTH) * way
    rotation = view.tool()[:3, :3]
    through = tuple(se3.pose(p, rotation) for p in (behind + 0.06 * UP, behind, end))
    yield Move(through, gripper=CLOSED, blend=0.03, may_end_short=True)


def grasp_pose(view: View, cube: np.ndarray, avoid: np.ndarray | None = None) -> np.ndarray:
    """A tool pose that grasps a cube, given by its pose, from above.

    z is down, y (the closing direction) along the horizontal edge of the cube that needs the least turning, or that
    keeps the open fingers clear of an object at ``avoid``. Where the control mode cannot turn, the tool's own
    orientation.
    """
    tool, centre = view.tool(), cube[:3, 3]
    if not view.turns:
        return se3.pose(centre, tool[:3, :3])
    edges = [cube[:3, i] for i in np.argsort(np.abs(cube[2, :3]))[:2]]
    edges = [edge * [1.0, 1.0, 0.0] / np.linalg.norm(edge[:2]) for edge in edges]
    candidates = [sign * edge for edge in edges for sign in (1.0, -1.0)]

    def cost(closing: np.ndarray) -> float:
        turn = float(np.arccos(np.clip(closing @ tool[:3, 1], -1.0, 1.0)))
        if avoid is None or np.linalg.norm((avoid - centre)[:2]) > CROWDED:
            return turn
        towards = (avoid - centre) * [1.0, 1.0, 0.0]
        return turn + 10.0 * abs(float(closing @ towards)) / float(np.linalg.norm(towards))

    closing = min(candidates, key=cost)
    return se3.pose(centre, np.stack([np.cross(closing, -UP), closing, -UP], axis=1))


def lifted(T: np.ndarray, height: float) -> np.ndarray:
    """The pose moved up by ``height`` metres."""
    return se3.pose(T[:3, 3] + height * UP, T[:3, :3])


def pick(view: View) -> Iterator[Step]:
    """Grasp ``env.cube`` and carry it to ``env.goal_site``."""
    env = view.env
    cube, goal = view.pose(env.cube), view.pose(env.goal_site)[:3, 3]
    grasp = grasp_pose(view, cube)
    yield Move((lifted(grasp, 0.06), grasp), gripper=OPEN, tolerance=0.003)
    yield Stay(3, gripper=CLOSED)
    tool = view.tool()
    offset = tool[:3, 3] - view.pose(env.cube)[:3, 3]
    yield Move((se3.pose(goal + offset, tool[:3, :3]),), tolerance=0.003)
    yield Stay(10)


def stack(view: View) -> Iterator[Step]:
    """Put ``env.cubeA`` on ``env.cubeB`` and let go."""
    env = view.env
    A, B = view.pose(env.cubeA), view.pose(env.cubeB)
    grasp = grasp_pose(view, A, avoid=B[:3, 3])
    yield Move((lifted(grasp, 0.06), grasp), gripper=OPEN, tolerance=0.003)
    yield Stay(3, gripper=CLOSED)
    tool, height = view.tool(), 2.0 * float(env.cube_half_size[2])
    offset = tool[:3, 3] - view.pose(env.cubeA)[:3, 3]
    place = se3.pose(view.pose(env.cubeB)[:3, 3] + (height + 0.002) * UP + offset, tool[:3, :3])
    yield Move((lifted(tool, 0.08), lifted(place, 0.04), place), blend=0.03, tolerance=0.003)
    yield Stay(6, gripper=OPEN)
    yield Move((lifted(place, 0.06),))
    yield Stay(5)


def push_expert(env: ManiSkillEnv) -> Oracle:
    """Who demonstrates PushCube and PullCube; the gripper stays closed."""
    return Oracle(env.unwrapped, push, gripper_moves=False)


def pick_expert(env: ManiSkillEnv) -> Oracle:
    """Who demonstrates PickCube."""
    return Oracle(env.unwrapped, pick)


def stack_expert(env: ManiSkillEnv) -> Oracle:
    """Who demonstrates StackCube."""
    return Oracle(env.unwrapped, stack)
