"""The toy task, and its expert: straight to the goal."""

import numpy as np

from rlft_envs.task import Task
from rlft_envs.toy import ENV_IDS, INSTRUCTION, MAX_STEP, ToyEnv, configurations


class ToyExpert:
    """Moves along the straight line, a little slower than it could, and stays at the goal."""

    speed = 0.8
    frozen_action_dims: tuple[int, ...] = ()
    noisy_dims: tuple[int, ...] = (0, 1)
    success_counts = True

    def __init__(self, env: ToyEnv) -> None:
        self._env = env

    def act(self) -> np.ndarray:
        """The next displacement, float32 ``[2]``, in units of the largest step."""
        way = (self._env._goal - self._env._pos) / MAX_STEP
        return (way * min(1.0, self.speed / max(float(np.abs(way).max()), 1e-9))).astype(np.float32)

    def hold(self) -> np.ndarray:
        """No displacement, float32 ``[2]``."""
        return np.zeros(2, dtype=np.float32)


TASKS = (Task(ENV_IDS, INSTRUCTION, expert=ToyExpert, configurations=configurations),)
