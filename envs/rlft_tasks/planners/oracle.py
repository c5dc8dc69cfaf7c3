"""Runs a task's plan one action at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlft_envs.errors import PlanError
from rlft_tasks.planners import se3
from rlft_tasks.planners.control import OPEN, Command, Control
from rlft_tasks.planners.kinematics import Arm
from rlft_tasks.planners.paths import TimedPath, time_path

BISECTIONS = 6


@dataclass(frozen=True)
class Move:
    """Move the tool along straight (screw) legs through world poses."""

    through: tuple[np.ndarray, ...]  # world tool poses; the last is where the move ends
    gripper: float | None = None  # fraction of the gripper's range while moving; None keeps the last
    blend: float = 0.02  # how far from inner waypoints the corner may be rounded, metres
    speed: float = 1.0  # factor on the velocity limit
    tolerance: float = 0.005  # the move is over when the tool is this near to its end, metres
    settle_steps: int = 6  # or this many steps after the path's end
    may_end_short: bool = False  # where the last leg leads out of reach, go as far as the arm can
    give_up_if: Callable[[], bool] | None = None  # asked before every step; once true, the move ends where it is


@dataclass(frozen=True)
class Stay:
    """Keep the tool where it was last sent, with the gripper at a fraction of its range."""

    steps: int  # environment steps
    gripper: float | None = None  # fraction of the gripper's range; None keeps the last


Step = Move | Stay


class View:
    """What a plan may look at: the simulator's own poses, in the world frame."""

    def __init__(self, env: Any, arm: Arm, turns: bool) -> None:
        self.env, self._arm = env, arm  # unwrapped, with one scene
        self.turns = turns  # whether the control mode can change the tool's orientation
        # Whether a success now is the plan's: a plan during which the task can be solved by accident, or before the
        # object is let go, sets it to False until its last part.
        self.success_counts = True

    def pose(self, actor: Any) -> np.ndarray:
        """The pose of an actor."""
        return se3.from_raw(actor.pose.raw_pose[0].cpu().numpy())

    def tool(self) -> np.ndarray:
        """The measured pose of the tool."""
        return self._arm.base() @ self._arm.forward(self._arm.joints())

    def reaches(self, move: Move) -> bool:
        """Whether the arm can follow a move from where it is."""
        joints = self._arm.joints()
        try:
            self._arm.follow(move.through, joints, move.blend)
        except PlanError:
            return False
        return True


MotionPlan = Callable[[View], Iterator[Step]]


class Oracle:
    """An expert for one episode of an unwrapped ManiSkill environment, made right after the episode's reset.

    The plan reads poses when its steps are asked for; without ``gripper_moves`` it holds the gripper at one value.
    The joints' ``velocity`` stays below its limit, rad/s, and so does their ``acceleration``, rad/s^2.
    """

    def __init__(
        self, env: Any, plan: MotionPlan, velocity: float = 1.2, acceleration: float = 4.0, gripper_moves: bool = True
    ) -> None:
        self._velocity, self._acceleration, self._gripper = velocity, acceleration, OPEN
        self._period, self._arm = 1.0 / float(env.control_freq), Arm(env.agent)
        self._control = Control(env.agent, self._arm, self._period)
        self.frozen_action_dims = () if gripper_moves else self._control.dims("gripper")  # that the plan never changes
        self._view = View(env, self._arm, self._control.turns)
        self._reference, self._actions = self._arm.joints(), self._run(plan(self._view))
        self._holding = self._travelling = False

    @property
    def noisy_dims(self) -> tuple[int, ...]:
        """Action dimensions that may be disturbed now: the arm's while it travels, none where it has to be exact."""
        return self._control.dims("arm") if self._travelling else ()

    @property
    def success_counts(self) -> bool:
        """Whether a success after the action that :meth:`act` last gave ends the demonstration."""
        return self._view.success_counts

    def act(self) -> np.ndarray | None:
        """The next action, float32 ``[d]``, for the state that the simulator is in now; None: the plan is over."""
        return next(self._actions, None)

    def hold(self) -> np.ndarray:
        """An action that keeps arm and gripper as they are, float32 ``[d]``."""
        if not self._holding:
            self._reference, self._holding = self._arm.joints(), True
        return self._action(self._control.encode(self._reference))

    def _run(self, steps: Iterator[Step]) -> Iterator[np.ndarray]:
        for step in steps:
            if step.gripper is not None:
                self._gripper = step.gripper
            if isinstance(step, Move):
                yield from self._move(step)
                continue
            for _ in range(step.steps):
                yield self._action(self._control.encode(self._reference))

    def _action(self, command: Command) -> np.ndarray:
        if not np.isfinite(command.load):
            raise PlanError("no_plan", "the planned position lies outside the controller's action bounds")
        # A push from outside can put the arm further from its path than one action reaches: then go as far as allowed.
        return self._control.assemble(command.action / max(1.0, command.load), self._gripper)

    def _move(self, move: Move) -> Iterator[np.ndarray]:
        joints = self._arm.follow(move.through, self._arm.joints(), move.blend, may_end_short=move.may_end_short)
        path, clock = time_path(joints, move.speed * self._velocity, self._acceleration), 0.0
        give_up = move.give_up_if or (lambda: False)
        while clock < path.duration and not give_up():
            self._travelling = True
            advance, command = self._advance(path, clock)
            clock += advance
            self._reference = path.joints(clock)
            yield self._action(command)
        self._travelling = False
        if clock < path.duration:
            return
        self._reference = path.joints(path.duration)
        end = self._arm.forward(self._reference)[:3, 3]
        for _ in range(move.settle_steps):
            if np.linalg.norm(self._arm.forward(self._arm.joints())[:3, 3] - end) < move.tolerance:
                return
            yield self._action(self._control.encode(self._reference))

    def _advance(self, path: TimedPath, clock: float) -> tuple[float, Command]:
        """How far the path's clock may go in this step so that the action fits its bounds, seconds."""
        command = self._control.encode(path.joints(clock + self._control.look_ahead))
        if command.load <= 1.0:
            return self._period, command

        def after(advance: float) -> Command:
            return self._control.encode(path.joints(clock - self._period + advance + self._control.look_ahead))

        low, high = 0.0, self._period
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if after(middle).load <= 1.0 else (low, middle)
        return low, after(low)
