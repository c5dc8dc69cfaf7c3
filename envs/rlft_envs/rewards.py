"""The per-step reward, from what a simulator reports. Pure functions on numpy arrays and torch tensors alike.

Let ``phi`` be the task's dense reward, normalised to about [0, 1], ``b`` the success bonus and ``c`` the scale. Then:

- ``dense_difference``: ``r_j = c (phi_j - phi_{j-1}) + b [first success at j]``. The differences telescope, so an
  episode's return says how much better its end is than its start, and standing still near the goal earns nothing.
- ``dense``: ``r_j = c phi_j + b [first success at j]``.
- ``sparse``: ``r_j = b [first success at j]``.
"""

from rlft.types import Array, RewardSettings

REWARD_MODES = ("dense_difference", "dense", "sparse")


def grasp_potential(grasped: Array, held: Array, success: Array) -> Array:
    """The dense reward of the WidowX tasks: ``0.1 grasped + 0.1 held + 1.0 (success and grasped)``.

    The weights are those of RL4VLA (Liu et al. 2025), whose reward is this number's increase. Whether the object was
    ever grasped, and ever held for five steps in a row, and whether the task is solved now are bool, of any shape.
    """
    return 0.1 * grasped + 0.1 * held + 1.0 * (success & grasped)


def step_reward(settings: RewardSettings, dense: Array, previous_dense: Array, first_success: Array) -> Array:
    """The reward of one executed step, of any shape; ValueError where there is no such mode.

    The dense rewards are normalised, after the step and before; ``first_success`` is 1.0 where the step is the
    episode's first success, else 0.0.
    """
    bonus = settings.success_bonus * first_success
    if settings.mode == "dense_difference":
        return settings.scale * (dense - previous_dense) + bonus
    if settings.mode == "dense":
        return settings.scale * dense + bonus
    if settings.mode == "sparse":
        return bonus
    raise ValueError(f"reward.mode = {settings.mode!r}; allowed: {', '.join(REWARD_MODES)}")
