"""ManiSkill's WidowX tasks of BridgeData V2 (SimplerEnv), behind our contract. Imported lazily, with ManiSkill.

The tasks are upstream's. What is mended here: images and lists that upstream keeps on the class, shared by all
environments of a process; a reset that settles objects while the robot still stands where the last episode left it; a
stand-in mesh that upstream would show though the original lies beside it; and a reward, which upstream lacks.
"""

from collections.abc import Mapping
from typing import Any

import sapien
import torch
from mani_skill.envs.tasks.digital_twins.bridge_dataset_eval.base_env import BRIDGE_DATASET_ASSET_PATH, BaseBridgeEnv
from mani_skill.utils.structs import Actor, Pose

from rlft.types import EnvSettings
from rlft_envs.assets import visual_mesh
from rlft_envs.errors import EnvSetupError
from rlft_envs.images import fit_image
from rlft_envs.rewards import grasp_potential

MODELS = BRIDGE_DATASET_ASSET_PATH / "custom" / "models"
LIFTED = 1.0  # metres above its place, where the robot waits while objects come to rest


class Adapted(BaseBridgeEnv):
    """What is mended, to be put before one of upstream's four WidowX tasks."""

    SUPPORTED_REWARD_MODES = ("none", "normalized_dense")

    def __init__(self, **kwargs: Any) -> None:
        self._rgb_overlay_images: dict[str, Any] = {}
        self._objects_to_remove_from_greenscreen: list[Any] = []
        self._backgrounds: dict[str, torch.Tensor] = {}
        self.rgb_overlay_mode = "none"  # compose_image does it, at the camera's own resolution
        super().__init__(**kwargs)

    @property
    def num_episode_ids(self) -> int:
        """Positions times orientations: 24 on the table, 64 in the sink."""
        return len(self.xyz_configs) * len(self.quat_configs)

    def _build_actor_helper(
        self, model_id: str, scale: float = 1.0, kinematic: bool = False, initial_pose: Any = None
    ) -> Actor:
        """As upstream does, but with the mesh of :func:`rlft_envs.assets.visual_mesh`."""
        material = sapien.physx.PhysxMaterial(self.obj_static_friction, self.obj_dynamic_friction, restitution=0.0)
        how = {"material": material, "density": self.model_db[model_id].get("density", 1000)}
        size, folder, builder = [scale] * 3, MODELS / model_id, self.scene.create_actor_builder()
        builder.add_multiple_convex_collisions_from_file(str(folder / "collision.obj"), scale=size, **how)
        builder.add_visual_from_file(str(visual_mesh(folder)), scale=size)
        if initial_pose is not None:
            builder.initial_pose = initial_pose
        return builder.build_kinematic(model_id) if kinematic else builder.build(model_id)

    def _after_reconfigure(self, options: dict) -> None:
        kept = [thing.per_scene_id for thing in self._objects_to_remove_from_greenscreen]
        self._foreground = torch.unique(torch.cat(kept))
        for name in self.rgb_overlay_paths if self.scene.can_render() else ():
            size = self.scene.sensors[name].config
            image = fit_image(self.rgb_overlay_paths[name], size.height, size.width)
            self._backgrounds[name] = torch.as_tensor(image, device=self.device)
        super()._after_reconfigure(options)

    def _initialize_episode(self, env_idx: torch.Tensor, options: dict) -> None:
        at = self.agent.robot.pose
        self.agent.robot.set_pose(Pose.create_from_pq(at.p + at.p.new_tensor([0.0, 0.0, LIFTED]), at.q))
        super()._initialize_episode(env_idx, options)

    def compose_image(self, camera: str, rgb: torch.Tensor, segmentation: torch.Tensor) -> torch.Tensor:
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


def adapt(task: type[BaseBridgeEnv], settings: EnvSettings) -> tuple[type[BaseBridgeEnv], dict[str, Any]]:
    """Subclass one of upstream's four WidowX tasks; refuses GPU physics."""
    if settings.sim_backend == "gpu":
        wrong = f"{settings.env_id}: upstream's reset lets every environment of a GPU simulation run on"
        raise EnvSetupError(f"{wrong}; use sim.backend=cpu, or PutOnPlateInScene25Single-v1")
    return type(task.__name__, (Adapted, task), {"SUPPORTED_OBS_MODES": ("none", *task.SUPPORTED_OBS_MODES)}), {}
