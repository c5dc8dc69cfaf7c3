"""A ManiSkill task of one's own: push the cube to a goal on the left, and who demonstrates it."""

from mani_skill.envs.tasks import PushCubeEnv
from mani_skill.utils.registration import register_env
from mani_skill.utils.structs.pose import Pose

from rlft_envs.task import Task


@register_env("MyPush-v1", max_episode_steps=50)
class MyPush(PushCubeEnv):
    """The goal lies beside the cube instead of behind it."""

    def _initialize_episode(self, env_idx, options):
        super()._initialize_episode(env_idx, options)
        goal = self.obj.pose.p[env_idx].clone()
        goal[:, 1] += 0.1 + self.goal_radius
        goal[:, 2] = 1e-3
        self.goal_region.set_pose(Pose.create_from_pq(goal, self.goal_region.pose.q[env_idx]))

    def evaluate(self):
        away = self.obj.pose.p[..., :2] - self.goal_region.pose.p[..., :2]
        return {"success": (away.norm(dim=1) < self.goal_radius) & (self.obj.pose.p[..., 2] < 0.05)}

    def compute_normalized_dense_reward(self, obs, action, info):
        away = self.obj.pose.p[..., :2] - self.goal_region.pose.p[..., :2]
        return 1.0 - (5.0 * away.norm(dim=1)).tanh()


PUSH = Task(("MyPush-v1",), "push the cube to the left", "their_pkg.planner:expert", movable=("obj", "goal_region"))
TASKS = (PUSH,)
