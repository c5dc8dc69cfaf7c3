"""What counts as success, and what is counted on the way. Every tensor has a leading axis E."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

SIDEWAYS = 0.01  # metres that the object's centre may lie beyond the plate's longest half edge
ABOVE = 0.05  # metres of air that may be between the two boxes
TOUCH = 0.03  # newtons
HELD_STEPS = 5
PRESS = 0.5  # newtons
PRESS_ANGLE = 85.0  # degrees between the force on a finger and the way it opens


@dataclass(frozen=True)
class Seen:
    """What there is to see of the task now, in every environment."""

    source: torch.Tensor  # the object's position, float `[E, 3]`, metres
    target: torch.Tensor  # the plate's
    fingers: torch.Tensor  # the point between the fingers, float `[E, 3]`
    grasped: torch.Tensor  # both fingers press on the object, bool `[E]`
    force: torch.Tensor  # size of the contact force between object and plate, float `[E]`, newtons


def on_target(seen: Seen, source_size: torch.Tensor, target_size: torch.Tensor) -> torch.Tensor:
    """Whether the object lies on the plate, as published (RL4VLA): bool ``[E]``.

    The sizes are edges of their upright boxes as they lay at the start, float ``[E, 3]``, metres.
    """
    offset = seen.source - seen.target
    near = torch.linalg.norm(offset[:, :2], dim=1) <= target_size.max(dim=1).values / 2 + SIDEWAYS
    gap = offset[:, 2] - (target_size[:, 2] + source_size[:, 2]) / 2
    return near & (offset[:, 2] > 0) & (gap <= ABOVE) & (seen.force > TOUCH)


def holding(forces: torch.Tensor, opening: torch.Tensor) -> torch.Tensor:
    """Whether two fingers press on a thing, bool ``[E]``: ManiSkill's ``WidowX250S.is_grasping``, for known forces.

    Forces are those on each finger, newtons; unit vectors say how each opens: float ``[2, E, 3]``.
    """
    size = torch.linalg.norm(forces, dim=2)
    cosine = (forces * opening).sum(dim=2) / size.clamp(min=PRESS)  # a smaller force counts for nothing anyway
    angle = torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))
    return ((size >= PRESS) & (angle <= PRESS_ANGLE)).all(dim=0)


def upright_size(size: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """Edges of the upright box around one with edges ``[..., 3]`` that is turned by wxyz, ``[..., 4]``; float32."""
    turns = np.abs(Rotation.from_quat(quaternion, scalar_first=True).as_matrix())
    return (turns @ size[..., None])[..., 0].astype(np.float32)


class EpisodeRecord:
    """What happened since each environment's reset: latched terms, and how long the object has been held.

    A step counts once, however often it is looked at: another environment's reset evaluates everybody.
    """

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self._grasped, self._held, self._on_target = torch.zeros(3, num_envs, dtype=torch.bool, device=device)
        self._in_a_row = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._counted = torch.full((num_envs,), -1, dtype=torch.int64, device=device)

    def reset(self, env_idx: torch.Tensor) -> None:
        """Forget what happened in these environments."""
        for flags in (self._grasped, self._held, self._on_target, self._in_a_row):
            flags[env_idx] = 0
        self._counted[env_idx] = -1

    def update(self, step: torch.Tensor, grasped: torch.Tensor, placed: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take in what is seen now: steps since the reset, whether the fingers hold the object, whether it lies there.

        Of what is returned, bool ``[E]`` each, ``is_src_obj_grasped``, ``consecutive_grasp`` (five steps in a row) and
        ``src_ever_on_target`` are latched, ``grasped_now``, ``consecutive_grasp_now`` and ``src_on_target`` not.
        """
        new = step != self._counted
        self._counted = torch.where(new, step.to(self._counted.dtype), self._counted)
        self._in_a_row = torch.where(new, (self._in_a_row + 1) * grasped, self._in_a_row)
        held = self._in_a_row >= HELD_STEPS
        self._grasped |= new & grasped
        self._held |= held
        self._on_target |= new & placed
        return {
            "is_src_obj_grasped": self._grasped.clone(),
            "consecutive_grasp": self._held.clone(),
            "src_ever_on_target": self._on_target.clone(),
            "grasped_now": grasped,
            "consecutive_grasp_now": held,
            "src_on_target": placed,
        }
