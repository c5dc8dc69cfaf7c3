"""Which task has a planner."""

from __future__ import annotations

from typing import Any

from rlft_envs.planners.oracle import Oracle, Plan
from rlft_envs.planners.tasks import pick, push, stack

PLANS: dict[str, Plan] = {
    "PickCube-v1": pick,
    "PullCube-v1": push,
    "PushCube-v1": push,
    "StackCube-v1": stack,
}


def plan_for(env_id: str) -> Plan:
    """The plan of a task.

    Raises:
        ValueError: the task has none; lists those that have.
    """
    if env_id not in PLANS:
        raise ValueError(
            f"env.id={env_id!r} has no motion planner; tasks with one: {', '.join(sorted(PLANS))}. Record "
            "demonstrations elsewhere and name them in dataset.path, or add a plan to rlft_envs.planners.registry"
        )
    return PLANS[env_id]


def make_oracle(env: Any, env_id: str) -> Oracle:
    """The expert for the episode that an unwrapped environment has just started.

    Raises:
        ValueError: no planner for this task or control mode.
    """
    return Oracle(env, plan_for(env_id))
