"""Which task has a planner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlft.types import EnvSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.record import Expert
from rlft_envs.single import SingleEnv
from rlft_envs.toy import ToyEnv
from rlft_tasks.panda import pick, push, stack
from rlft_tasks.planners.oracle import Limits, Oracle, Plan
from rlft_tasks.planners.put_on import put_on
from rlft_tasks.put_on_plate.variants import PREFIX
from rlft_tasks.toy import ToyExpert


@dataclass(frozen=True)
class Planner:
    """How one task is demonstrated.

    Attributes:
        plan: the steps.
        gripper_moves: False where every action of the plan holds the gripper at one value.
        limits: of the joints' motion; None takes the oracle's own.
    """

    plan: Plan
    gripper_moves: bool = True
    limits: Limits | None = None


PUT_ON = Planner(put_on, limits=Limits(velocity=1.5, acceleration=3.0))  # episodes as long as the published ones
PREFIXES: dict[str, Planner] = {PREFIX: PUT_ON}
"""Planners of whole families: the tasks whose ids begin so."""
PLANNERS: dict[str, Planner] = {
    "PickCube-v1": Planner(pick),
    "PullCube-v1": Planner(push, gripper_moves=False),
    "PushCube-v1": Planner(push, gripper_moves=False),
    "PutCarrotOnPlateInScene-v1": PUT_ON,
    "PutEggplantInBasketScene-v1": PUT_ON,
    "PutSpoonOnTableClothInScene-v1": PUT_ON,
    "StackCube-v1": Planner(stack),
    "StackGreenCubeOnYellowCubeBakedTexInScene-v1": PUT_ON,
}


def planner_for(env_id: str) -> Planner:
    """The planner of a task.

    Raises:
        EnvSetupError: the task has none; lists those that have.
    """
    if env_id in PLANNERS:
        return PLANNERS[env_id]
    for prefix, planner in PREFIXES.items():
        if env_id.startswith(prefix):
            return planner
    known = sorted([*PLANNERS, *(f"{prefix}..." for prefix in PREFIXES)])
    raise EnvSetupError(
        f"env.id={env_id!r} has no motion planner; tasks with one: {', '.join(known)}. Record "
        "demonstrations elsewhere and name them in dataset.path, or add a plan to rlft_tasks.planners.registry"
    )


def planner_name(settings: EnvSettings) -> str:
    """What is written into the dataset as the demonstrator."""
    if settings.simulator == "toy":
        return "rlft_tasks.planners:toy"
    return f"rlft_tasks.planners:{planner_for(settings.env_id).plan.__name__}"


def make_oracle(env: Any, env_id: str) -> Oracle:
    """The expert for the episode that an unwrapped ManiSkill environment has just started.

    Raises:
        EnvSetupError: no planner for this task or control mode.
    """
    planner = planner_for(env_id)
    return Oracle(env, planner.plan, planner.limits, gripper_moves=planner.gripper_moves)


def make_expert(env: SingleEnv) -> Expert:
    """The expert for the episode that an environment has just started.

    Raises:
        EnvSetupError: no planner for this task or control mode.
    """
    if isinstance(env, ToyEnv):
        return ToyExpert(env)
    return make_oracle(env.unwrapped, env.settings.env_id)  # type: ignore[attr-defined]
