"""Environment steps/s with our control step and one dense reward a chunk, against ``BaseEnv.step`` at every step.

Both sides are one environment in this process that steps A actions and is then observed (an image, the state, the
simulator's own state), as in the demo's rollouts. They play the same actions, and what the simulator's state differs
by after them is measured: nothing, if the arithmetic is the same.
"""

import os
import statistics
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.env_sides import env_settings
from benchmarks.harness import Pairs, Row, Settings, in_turns
from rlft_envs.single import Outcome, SingleEnv

BUDGET_S = 45
SIDES = {56: "the demo's image", 128: "the task's own"}  # pixels
ACT_STEPS, CHUNKS = 5, 8
GOAL = 1.5
COMPARED_STEPS = 200


def run(settings: Settings) -> Iterator[Row]:
    """Either image size."""
    os.environ["LP_NUM_THREADS"] = "0"  # the renderer draws in this thread; read when the driver is loaded
    import torch

    torch.set_num_threads(1)  # as in our workers
    for side, what in SIDES.items():
        yield _compare(side, what, settings.pairs)


def _compare(side: int, what: str, pairs: int) -> Row:
    import torch

    from rlft_envs.maniskill.env import ManiSkillEnv

    class Stock(ManiSkillEnv):
        """The same environment, stepped by ManiSkill."""

        def _advance(self, action: np.ndarray) -> Outcome:
            _, reward, _, _, info = self.unwrapped.step(torch.as_tensor(action)[None])
            self.reward = float(reward)
            return Outcome(bool(info["success"]))

        def _dense_reward(self) -> float:
            return self.reward if self.elapsed else super()._dense_reward()

    task = replace(env_settings(side, 1, 0, {"visual_cell": 0.01}), privileged=True)
    envs = {"ours": ManiSkillEnv(replace(task, reward_per_chunk=True)), "theirs": Stock(task)}
    low, high = np.array(envs["ours"].spec.action_low), np.array(envs["ours"].spec.action_high)
    actions = np.random.default_rng(0).uniform(low, high, (COMPARED_STEPS, len(low))).astype(np.float32)
    try:
        for env in envs.values():
            env.reset(0)
            env.observe()  # compiles shaders
        rewards, apart = dict.fromkeys(envs, 0.0), 0.0
        for j, action in enumerate(actions):
            for name, env in envs.items():
                due = name == "theirs" or j % ACT_STEPS == ACT_STEPS - 1
                rewards[name] += env.step(action, reward_due=due).reward
            ours, theirs = (env.unwrapped.get_state() for env in envs.values())
            apart = max(apart, float((ours - theirs).abs().max()))
        works = {name: partial(_chunks, env, actions, name == "ours") for name, env in envs.items()}
        steps = {f"{name} steps": partial(_steps, env, actions) for name, env in envs.items()}
        rates = in_turns(works | steps, pairs)
    finally:
        for env in envs.values():
            env.close()
    ms = {name: 1e3 / statistics.median(rates[f"{name} steps"]) for name in envs}
    image = {name: 1e3 * ACT_STEPS / statistics.median(rates[name]) - ACT_STEPS * ms[name] for name in envs}
    return Pairs(rates["ours"], rates["theirs"]).row(
        "env_step",
        f"PushCube-v1, {side} x {side} ({what}), A = {ACT_STEPS}",
        unit="steps/s",
        baseline="the same environment stepped by BaseEnv.step",
        goal=GOAL,
        explanation=(
            f"A step without reward takes {ms['ours']:.2f} ms, ManiSkill's {ms['theirs']:.2f} ms, and either side "
            f"takes {image['theirs']:.1f} ms more per chunk for what is observed, which is the same for both."
        ),
        facts={
            "step_ms": ms["ours"],
            "stock_step_ms": ms["theirs"],
            "observation_ms": image["theirs"],
            f"largest_difference_of_states_in_{COMPARED_STEPS}_steps": apart,
            "difference_of_returns": abs(rewards["ours"] - rewards["theirs"]),
        },
    )


def _chunks(env: SingleEnv, actions: np.ndarray, once: bool) -> float:
    """Chunks as a rollout plays them; the number of steps."""
    for c in range(CHUNKS):
        for j in range(ACT_STEPS):
            env.step(actions[(ACT_STEPS * c + j) % len(actions)], reward_due=not once or j == ACT_STEPS - 1)
        env.observe()
    return float(CHUNKS * ACT_STEPS)


def _steps(env: SingleEnv, actions: np.ndarray) -> float:
    """Steps alone; the number of them."""
    n = CHUNKS * ACT_STEPS
    for j in range(n):
        env.step(actions[j % len(actions)], reward_due=False)
    return float(n)
