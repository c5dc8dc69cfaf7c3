"""ManiSkill's WidowX tasks of BridgeData V2 (SimplerEnv), behind our contract. Imported lazily, with ManiSkill.

The tasks are upstream's. What is mended here: pictures and lists that upstream keeps on the class, shared by all
environments of a process; a reset that settles objects while the robot still stands where the last episode left it;
and a reward, which upstream lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mani_skill.envs.tasks.digital_twins.bridge_dataset_eval.base_env import BaseBridgeEnv
from mani_skill.utils.structs import Pose

from rlft_envs.pictures import fit_picture
from rlft_envs.rewards import grasp_potential

LIFTED = 1.0  # metres above its place, where the robot waits while objects come to rest


def adapted(task: type[BaseBridgeEnv]) -> type[BaseBridgeEnv]:
    """Subclass one of upstream's four WidowX tasks."""

    class Adapted(task):
        SUPPORTED_OBS_MODES = ("none", *task.SUPPORTED_OBS_MODES)
        SUPPORTED_REWARD_MODES = ("none", "normalized_dense")

        def __init__(self, **kwargs: Any) -> None:
            self._rgb_overlay_images: dict[str, Any] = {}
            self._objects_to_remove_from_greenscreen: list[Any] = []
            self._backgrounds: dict[str, torch.Tensor] = {}
            self.rgb_overlay_mode = "none"  # compose_picture does it, at the camera's own resolution
            super().__init__(**kwargs)

        @property
        def num_episode_ids(self) -> int:
            """Positions times orientations: 24 on the table, 64 in the sink."""
            return len(self.xyz_configs) * len(self.quat_configs)

        def _after_reconfigure(self, options: dict) -> None:
            kept = [thing.per_scene_id for thing in self._objects_to_remove_from_greenscreen]
            self._foreground = torch.unique(torch.cat(kept))
            for name in self.rgb_overlay_paths if self.scene.can_render() else ():
                size = self.scene.sensors[name].config
                picture = fit_picture(self.rgb_overlay_paths[name], size.height, size.width)
                self._backgrounds[name] = torch.as_tensor(picture, device=self.device)
            super()._after_reconfigure(options)

        def _initialize_episode(self, env_idx: torch.Tensor, options: dict) -> None:
            at = self.agent.robot.pose
            self.agent.robot.set_pose(Pose.create_from_pq(at.p + at.p.new_tensor([0.0, 0.0, LIFTED]), at.q))
            super()._initialize_episode(env_idx, options)

        def compose_picture(self, camera: str, rgb: torch.Tensor, segmentation: torch.Tensor) -> torch.Tensor:
            """The photograph wherever neither the robot nor an object is: uint8 ``[E, h, w, 3]``."""
            if camera not in self._backgrounds:
                return rgb
            foreground = torch.isin(segmentation, self._foreground.to(segmentation.device))[..., None]
            return torch.where(foreground, rgb, self._backgrounds[camera].to(rgb.device))

        def evaluate(self) -> dict[str, torch.Tensor]:
            """Upstream's terms (``is_src_obj_grasped`` and ``consecutive_grasp`` latched), and ``grasped_now``."""
            info = super().evaluate()
            del info["moved_correct_obj"], info["moved_wrong_obj"]  # upstream never sets them
            return {**info, "grasped_now": self.consecutive_grasp > 0}

        def compute_normalized_dense_reward(self, obs: Any, action: Any, info: Mapping[str, Any]) -> torch.Tensor:
            """See :func:`rlft_envs.rewards.grasp_potential`."""
            return grasp_potential(info["is_src_obj_grasped"], info["consecutive_grasp"], info["success"])

    Adapted.__name__ = Adapted.__qualname__ = task.__name__
    return Adapted
