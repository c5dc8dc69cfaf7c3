"""The composition root: settings in, connected parts out. The only package of rlft that knows the simulators.

:mod:`rlft.build.envs` builds environments, :mod:`rlft.build.policy` the policy with its heads, :mod:`rlft.build.run`
the PPO runner. Heavy imports happen inside the functions, so that a stage loads only what it uses.
"""

from rlft.build.envs import build_env, build_rollout_envs, env_settings, overlaps, settle_cameras, simulator_errors
from rlft.build.policy import build_actor_critic, build_policy, fresh_policy
from rlft.build.run import build_placement, build_protocol, build_runner, dataset_dir, rollout_store, run_dir

__all__ = [
    "build_actor_critic",
    "build_env",
    "build_placement",
    "build_policy",
    "build_protocol",
    "build_rollout_envs",
    "build_runner",
    "dataset_dir",
    "env_settings",
    "fresh_policy",
    "overlaps",
    "rollout_store",
    "run_dir",
    "settle_cameras",
    "simulator_errors",
]
