"""Which task has a planner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlft.types import EnvSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.planners.oracle import Oracle, Plan
from rlft_envs.planners.record import Expert
from rlft_envs.planners.tasks import pick, push, stack
from rlft_envs.planners.toy import ToyExpert
from rlft_envs.single import SingleEnv
from rlft_envs.toy import ToyEnv


@dataclass(frozen=True)
class Planner:
    """How one task is demonstrated.

    Attributes:
        plan: the steps.
        gripper_moves: False where every action of the plan holds the gripper at one value.
    """

    plan: Plan
    gripper_moves: bool = True


PLANNERS: dict[str, Planner] = {
    "PickCube-v1": Planner(pick),
    "PullCube-v1": Planner(push, gripper_moves=False),
    "PushCube-v1": Planner(push, gripper_moves=False),
    "StackCube-v1": Planner(stack),
}


def planner_for(env_id: str) -> Planner:
    """The planner of a task.

    Raises:
        EnvSetupError: the task has none; lists those that have.
    """
    if env_id not in PLANNERS:
        raise EnvSetupError(
            f"env.id={env_id!r} has no motion planner; tasks with one: {', '.join(sorted(PLANNERS))}. Record "
            "demonstrations elsewhere and name them in dataset.path, or add a plan to rlft_envs.planners.registry"
        )
    return PLANNERS[env_id]


def planner_name(settings: EnvSettings) -> str:
    """What is written into the dataset as the demonstrator."""
    if settings.simulator == "toy":
        return "rlft_envs.planners:toy"
    return f"rlft_envs.planners:{planner_for(settings.env_id).plan.__name__}"


def make_oracle(env: Any, env_id: str) -> Oracle:
    """The expert for the episode that an unwrapped ManiSkill environment has just started.

    Raises:
        EnvSetupError: no planner for this task or control mode.
    """
    planner = planner_for(env_id)
    return Oracle(env, planner.plan, gripper_moves=planner.gripper_moves)


def make_expert(env: SingleEnv) -> Expert:
    """The expert for the episode that an environment has just started.

    Raises:
        EnvSetupError: no planner for this task or control mode.
    """
    if isinstance(env, ToyEnv):
        return ToyExpert(env)
    return make_oracle(env.unwrapped, env.settings.env_id)  # type: ignore[attr-defined]
