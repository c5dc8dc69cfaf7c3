"""Every implementation of the VecEnv contract, built small: four environments that end inside a chunk of five."""

from dataclasses import dataclass, replace

from assets_at import find_assets

from rlft.types import CameraSettings, EnvSettings, RewardSettings
from rlft_envs.simulator import make_vec_env

E, A = 4, 5
TIME_LIMIT = 33  # no multiple of A: the limit falls inside a chunk

BASE = EnvSettings(
    simulator="maniskill",
    env_id="PushCube-v1",
    num_envs=E,
    max_episode_steps=TIME_LIMIT,
    control_mode="pd_ee_delta_pos",
    privileged=True,
)
TOY = replace(
    BASE,
    simulator="toy",
    env_id="ToyReach-v0",
    cameras=(CameraSettings("base_camera", 24, 32), CameraSettings("second", 16, 16)),
    state_terms=("tcp_pos", "goal_pos"),
)
PUSH_CUBE = replace(
    BASE,
    cameras=(CameraSettings("base_camera", 24, 32, fov=1.0, eye=(0.4, 0.0, 0.6), target=(-0.1, 0.0, 0.0)),),
    state_terms=("tcp_pos", "gripper", "goal_pos"),
    make_kwargs={"variation": {"object_region": [[-0.02, 0.02], [-0.02, 0.02]]}},
)
WIDOWX = replace(
    BASE,
    control_mode="arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos",
    cameras=(CameraSettings("3rd_view_camera", 66, 88),),
    state_terms=("qpos",),
    reward=RewardSettings(success_bonus=0.0),
    assets_root=str(find_assets()),
)
PUT_ON_PLATE = replace(WIDOWX, env_id="PutOnPlateInScene25Single-v1")
GYM = replace(BASE, simulator="gymnasium", control_mode="native")
SLIDER_KEYS = {"images": {"front": "view.front.rgb"}, "privileged": ["mark", "robot.at"]}
SLIDER = replace(
    GYM,
    env_id="their_gym:SliderOnDemand-v0",
    cameras=(CameraSettings("front", 16, 16),),
    state_terms=("robot.at", "mark"),
    options={**SLIDER_KEYS, "action_low": [-1.0], "action_high": [1.0]},
)
ALOHA = replace(
    GYM,
    env_id="gym_aloha/AlohaTransferCube-v0",
    cameras=(CameraSettings("top", 24, 32),),
    state_terms=("agent_pos",),
    reward=RewardSettings(scale=0.25),
    make_kwargs={"obs_type": "pixels_agent_pos", "visualization_height": 66, "visualization_width": 88},
    options={
        "images": {"top": "pixels.top"},
        "success": "reward >= 1",  # the right gripper touches the cube; handing it over takes 87 steps
        "human_view": "render",
        "privileged": ["objects", "agent_vel"],
        "action_low": [-3.2],
        "action_high": [3.2, -0.3, *[3.2] * 12],  # the left arm leans back: actions at random knock no cube over
        "runs_past_end": True,
    },
)


@dataclass(frozen=True)
class Factory:
    """How to build one implementation."""

    name: str
    settings: EnvSettings
    batched: bool = False
    control_hz: float = 20.0

    def build(self):
        if not self.batched:
            return make_vec_env(self.settings)
        from batched_maniskill import build_by_row

        from rlft_envs.maniskill.batched import ManiSkillGpuVecEnv

        return ManiSkillGpuVecEnv(self.settings, build=build_by_row)


TOYS = [
    Factory("toy", TOY),
    Factory("toy-workers", replace(TOY, num_workers=2)),
    Factory("gymnasium", SLIDER, control_hz=10.0),
]
MUJOCO = [
    Factory("gym-aloha", ALOHA, control_hz=50.0),
    Factory("gym-aloha-workers", replace(ALOHA, num_workers=2), control_hz=50.0),
]
SIMULATORS = [
    Factory("maniskill", PUSH_CUBE),
    Factory("maniskill-workers", replace(PUSH_CUBE, num_workers=2)),
    # A controller with a moving target, because that is what a partial reset of the batched simulation damages.
    Factory("maniskill-batched", replace(PUSH_CUBE, control_mode="pd_ee_target_delta_pos", sim_backend="gpu"), True),
]
FAMILY = [  # of numbered scenes that need assets
    Factory("put-on-plate", PUT_ON_PLATE, control_hz=5.0),
    Factory("put-on-plate-workers", replace(PUT_ON_PLATE, num_workers=2), control_hz=5.0),
    Factory("put-on-plate-batched", replace(PUT_ON_PLATE, sim_backend="gpu"), True, control_hz=5.0),
]
