"""The family's one scene class, made known to ManiSkill and gymnasium. Imported lazily; see docs/put_on_plate.md.

Every buffer has a leading axis of num_envs and is written at ``env_idx`` only.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import sapien
import torch
from mani_skill.agents.robots.widowx.widowx import WidowX250S
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.envs.tasks.digital_twins.bridge_dataset_eval.base_env import (
    BRIDGE_DATASET_ASSET_PATH,
    WidowX250SBridgeDatasetFlatTable,
)
from mani_skill.sensors.camera import CameraConfig
from mani_skill.utils import sapien_utils
from mani_skill.utils.registration import register_env
from mani_skill.utils.structs.types import SimConfig

from rlft.types import EnvSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.rewards import grasp_potential
from rlft_tasks.put_on_plate.configurations import Configuration, Configurations
from rlft_tasks.put_on_plate.overlays import Backdrop
from rlft_tasks.put_on_plate.settle import STAGE_AT, STAGE_POSE, settle_objects
from rlft_tasks.put_on_plate.stage import ROLES, Assignment, CpuStage, GpuStage
from rlft_tasks.put_on_plate.terms import EpisodeRecord, on_target, upright_size
from rlft_tasks.put_on_plate.variants import MAX_EPISODE_STEPS, MOVES_AFTER, VARIANTS

CAMERA = "3rd_view_camera"
TABLE_MESH = BRIDGE_DATASET_ASSET_PATH / "stages" / "bridge_table_1_v1.glb"
HOME = (-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398, 0.037, 0.037)
ROBOT_AT = sapien.Pose([0.147, 0.028, 0.870], [0, 0, 0, 1])
ARM = WidowX250SBridgeDatasetFlatTable.uid


class PutOnPlate(BaseEnv):
    """A WidowX arm puts an object on a plate, before a real table.

    Args:
        env_id: which variant (:data:`rlft_tasks.put_on_plate.variants.VARIANTS`).
        obj_set: ``train``, ``test`` or ``all``; ``reset(options={"obj_set": ...})`` changes it for the environments
            that are reset, until it is given again.
        assets_root: the directory that holds ``put_on_plate/``; None takes RLFT_ASSETS.
    """

    SUPPORTED_REWARD_MODES = ("normalized_dense", "sparse", "none")
    SUPPORTED_ROBOTS = (ARM,)
    agent: WidowX250S

    def __init__(
        self, env_id: str, obj_set: str = "train", assets_root: str | None = None, robot_uids: str = ARM, **kwargs: Any
    ) -> None:
        self.env_id, self._assets_root = env_id, assets_root or os.environ.get("RLFT_ASSETS")
        self._first_set = self.configurations(obj_set)
        self.variant = self._first_set.numbering.variant
        super().__init__(robot_uids=robot_uids, **kwargs)

    @property
    def num_episode_ids(self) -> int:
        """How many configurations the split has that the environment was made with."""
        return len(self._first_set)

    def configurations(self, obj_set: str) -> Configurations:
        """The numbered configurations of a split."""
        return Configurations(self.env_id, obj_set, self._assets_root)

    # What ManiSkill asks of a task.

    @property
    def _default_sim_config(self) -> SimConfig:
        return SimConfig(sim_freq=500, control_freq=5, spacing=20)

    @property
    def _default_human_render_camera_configs(self) -> CameraConfig:
        pose = sapien_utils.look_at([0.6, 0.7, 1.5], [-0.1, 0.0, 0.9])
        return CameraConfig("render_camera", pose=pose, width=512, height=512, fov=1.0, near=0.01, far=100)

    def _load_agent(self, options: dict) -> None:
        super()._load_agent(options, sapien.Pose(p=[0.127, 0.060, 0.85], q=[0, 0, 0, 1]))

    def _load_lighting(self, options: dict) -> None:
        self.scene.set_ambient_light([0.3, 0.3, 0.3])
        self.scene.add_directional_light([0, 0, -1], [2.2, 2.2, 2.2])
        self.scene.add_directional_light([-1, -0.5, -1], [0.7, 0.7, 0.7])
        self.scene.add_directional_light([1, 1, -1], [0.7, 0.7, 0.7])

    def _load_scene(self, options: dict) -> None:
        for robot in self.agent.robot._objs:
            sapien_utils.set_articulation_render_material(robot, specular=0.9, roughness=0.3)
        table = self.scene.create_actor_builder()
        table.add_nonconvex_collision_from_file(str(TABLE_MESH), pose=STAGE_POSE)
        table.add_visual_from_file(str(TABLE_MESH), pose=STAGE_POSE)
        table.initial_pose = STAGE_AT
        self._table = table.build_static(name="arena")
        on_gpu, roles = self.gpu_sim_enabled, ROLES if self.variant.distracts else ROLES[:2]
        self.stage = GpuStage(self, *self._first_set.models()) if on_gpu else CpuStage(self, roles)
        self._allocate()

    def _allocate(self) -> None:
        """The buffers, one row per environment."""
        E, device = self.num_envs, self.device
        self.running: dict[int, Configuration] = {}  # what each environment shows; empty before its first reset
        self._sets = [self._first_set] * E
        self._record = EpisodeRecord(E, device)
        self._source_size, self._target_size = torch.zeros(2, E, 3, device=device)
        # Whose object jumps, where to, and how many steps each has run: on the host, which so knows without asking.
        self._moves, self._moves_to, self._age = np.zeros(E, bool), np.zeros((E, 7), np.float32), np.zeros(E, int)
        self._backdrop: Backdrop | None = None

    # An episode's start.

    def reset(self, seed: int | list[int] | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """As in ManiSkill; options may hold ``episode_id`` (taken modulo their count) and ``obj_set``."""
        return super().reset(seed=int(self._main_rng.randint(2**31)) if seed is None else seed, options=options)

    def _initialize_episode(self, env_idx: torch.Tensor, options: dict) -> None:
        rows = env_idx.tolist()
        if "obj_set" in options:
            for i in rows:
                self._sets[i] = self.configurations(options["obj_set"])
        numbers = options.get("episode_id")
        if numbers is None:
            draws = [np.random.default_rng(int(seed)) for seed in self._episode_seed[: len(rows)]]
            numbers = [int(draw.integers(len(self._sets[i]))) for i, draw in zip(rows, draws)]
        for i, number in zip(rows, torch.as_tensor(numbers).reshape(-1).tolist()):
            self.running[i] = self._sets[i][number % len(self._sets[i])]
        self._age[rows] = 0
        self._set_scene_config()  # the falls depend on these defaults, which are global to the process
        self.stage.show(rows, self._assignments(rows))
        self._record.reset(env_idx)
        if self.scene.can_render():
            size, shown = self.scene.sensors[CAMERA].config, [self.running[i] for i in rows]
            if self._backdrop is None:
                self._backdrop = Backdrop(self.variant, self.num_envs, size.height, size.width, self.device)
            self._backdrop.show(rows, [c.table for c in shown], [c.texture for c in shown])
        offsets = [self.running[i].qpos_offset for i in sorted(rows)]  # ascending, as ManiSkill writes them
        qpos = torch.tensor(HOME) + torch.nn.functional.pad(torch.tensor(offsets), (0, 2))
        self.agent.robot.set_pose(ROBOT_AT)
        self.agent.reset(init_qpos=qpos.to(self.device))

    def _assignments(self, rows: list[int]) -> list[Assignment]:
        """Who plays what in these environments, and where they lie; also takes down their sizes, and who jumps."""
        things = [self.running[i].things for i in rows]
        poses = [settle_objects(tuple(each.values()), TABLE_MESH) for each in things]
        sizes = np.array([(each["source"].model.size, each["target"].model.size) for each in things])
        upright = upright_size(sizes, np.stack([lying[:2, 3:] for lying in poses]))
        ids = torch.as_tensor(rows, device=self.device)
        self._source_size[ids], self._target_size[ids] = torch.from_numpy(upright).to(self.device).unbind(dim=1)
        for i, each in zip(rows, things):
            jump = self.running[i].jump
            self._moves[i] = jump is not None
            if jump is not None:
                self._moves_to[i] = settle_objects((jump, each["target"]), TABLE_MESH)[0]
        models = [[thing.model for thing in each.values()] for each in things]
        return [dict(zip(each, zip(who, lying))) for each, who, lying in zip(things, models, poses)]

    # While it runs.

    def _after_control_step(self) -> None:
        """Objects that jump do so when their step is over, before it is looked at."""
        self._age += 1
        jumping = np.flatnonzero(self._moves & (self._age == MOVES_AFTER))
        if len(jumping):
            self.stage.move(jumping.tolist(), self._moves_to[jumping])

    def evaluate(self) -> dict[str, torch.Tensor]:
        """Success now, latched and instantaneous terms (:class:`EpisodeRecord`), distances in metres: ``[E]`` each."""
        seen = self.stage.read_contacts()
        stepped = self._elapsed_steps > 0  # a batched simulation still reports the last episode's contacts before
        grasped = seen.grasped & stepped
        placed = stepped & on_target(seen, self._source_size, self._target_size)
        return {
            **self._record.update(self._elapsed_steps, grasped, placed),
            "gripper_carrot_dist": torch.linalg.norm(seen.fingers - seen.source, dim=1),
            "gripper_plate_dist": torch.linalg.norm(seen.fingers - seen.target, dim=1),
            "carrot_plate_dist": torch.linalg.norm(seen.source - seen.target, dim=1),
            "success": placed,
        }

    def compute_normalized_dense_reward(self, obs: Any, action: Any, info: Mapping[str, Any]) -> torch.Tensor:
        """See :func:`rlft_envs.rewards.grasp_potential`; float ``[E]``."""
        return grasp_potential(info["is_src_obj_grasped"], info["consecutive_grasp"], info["success"])

    def get_language_instruction(self) -> list[str]:
        """One instruction per environment."""
        return [self.running[i].instruction if i in self.running else "" for i in range(self.num_envs)]

    def compose_image(self, camera: str, rgb: torch.Tensor, segmentation: torch.Tensor) -> torch.Tensor:
        """Put the photograph of the table behind robot and objects; only the task's own camera has one.

        Takes what was rendered, uint8 ``[E, h, w, 3]``, and entity ids, int ``[E, h, w]``.
        """
        if camera != CAMERA or self._backdrop is None:
            return rgb
        return self._backdrop.compose(rgb, (segmentation != 0) & (segmentation != self._table._objs[0].per_scene_id))

    def _get_obs_sensor_data(self, apply_texture_transforms: bool = True) -> dict:
        data = super()._get_obs_sensor_data(apply_texture_transforms)
        for name, seen in data.items():
            if "rgb" in seen and "segmentation" in seen:
                seen["rgb"] = self.compose_image(name, seen["rgb"], seen["segmentation"][..., 0])
        return data

    source_obj_name, target_obj_name = "source", "target"  # of `objs`, for planners

    @property
    def objs(self) -> dict[str, Any]:
        """Role -> actor (``source``, ``target``, perhaps ``extra``); EnvSetupError where physics runs on the GPU."""
        if not isinstance(self.stage, CpuStage):
            raise EnvSetupError("planners work on one environment; use sim.backend=cpu")
        return self.stage.actors


for env_id in VARIANTS:
    downloads = ["bridge_v2_real2sim", "widowx250s"]
    register_env(env_id, max_episode_steps=MAX_EPISODE_STEPS, asset_download_ids=downloads, env_id=env_id)(PutOnPlate)


def adapt(task: type[PutOnPlate], settings: EnvSettings) -> tuple[type[PutOnPlate], dict[str, Any]]:
    """The task, told where its assets are."""
    return task, {"assets_root": settings.assets_root}
