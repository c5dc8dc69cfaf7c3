"""Actions that solve the tasks of the conformance suite."""

from dataclasses import replace
from functools import cache

import numpy as np
from vec_env_factories import ALOHA, PUT_ON_PLATE, TIME_LIMIT, A

from rlft.types import DemoAttempt
from rlft_envs.simulator import build_single_env


def solve(simulator, state, act_dim):
    """An action towards success: reach the goal (toy, slider), or go behind the cube and push it (PushCube)."""
    if simulator != "maniskill":
        return np.clip((state[2:4] - state[:2]) / 0.12, -1, 1)
    tcp, goal = state[:3], state[4:7]
    cube = goal[:2] - [0.2, 0.0]
    behind = np.array([cube[0] - 0.06, cube[1], 0.02])
    aim = behind if tcp[2] > 0.04 and tcp[0] < cube[0] else np.array([tcp[0] + 0.1, cube[1], 0.02])
    action = np.full(act_dim, -1.0)
    action[:3] = np.clip((aim - tcp) / 0.1, -1, 1)
    return action


@cache
def planned(seed):
    """What the planner does in an episode of the family: float32 [steps, d]."""
    from rlft_envs.record import RecordSettings, record
    from rlft_envs.task import make_expert

    env = build_single_env(replace(PUT_ON_PLATE, cameras=()))
    recording = record(env, make_expert, DemoAttempt(0, seed, 0), RecordSettings(max_steps=TIME_LIMIT))
    env.close()
    assert recording.outcome == "success"
    return np.stack(recording.actions)


@cache
def grasped(seed):
    """How gym-aloha's expert reaches the cube, at twice its speed: float32 [steps, d]."""
    from rlft_envs.task import make_expert

    env = build_single_env(replace(ALOHA, cameras=(), options={**ALOHA.options, "images": {}}))
    env.reset(seed)
    expert = make_expert(env)
    env.close()
    return np.stack([expert.act() for _ in range(48)])[::2]


def towards_success(settings, seed, chunk, state, act_dim):
    """The next chunk of actions: float32 [A, d], or one action for all of them."""
    if settings.env_id == ALOHA.env_id:
        return grasped(seed)[np.minimum(np.arange(chunk * A, (chunk + 1) * A), len(grasped(seed)) - 1)]
    if settings.env_id != PUT_ON_PLATE.env_id:
        return 0.4 * solve(settings.simulator, state, act_dim)
    actions = planned(seed)[chunk * A : (chunk + 1) * A]
    return np.pad(actions, ((0, A - len(actions)), (0, 0)))
