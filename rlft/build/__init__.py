"""The composition root: settings in, connected parts out. The only package of rlft that knows the simulators.

:mod:`rlft.build.envs` builds environments, :mod:`rlft.build.policy` the policy with its heads, :mod:`rlft.build.run`
the PPO runner, :mod:`rlft.build.evaluation` evaluations. Heavy imports happen inside the functions, so that a stage
loads only what it uses.
"""

from rlft.build.envs import build_env, build_rollout_envs, check_task, env_settings, overlaps, simulator_errors
from rlft.build.evaluation import (
    SuitePolicy,
    build_eval_env,
    build_evaluator,
    build_protocol,
    member_protocols,
    member_settings,
    numbered_episodes,
    policy_fingerprint,
)
from rlft.build.policy import build_actor_critic, build_policy, check_method, demo_stats, fresh_policy
from rlft.build.preflight import check_base, check_checkpoint, preflight
from rlft.build.randomization import build_randomizer
from rlft.build.run import build_placement, build_runner, dataset_dir, rollout_store, run_dir

__all__ = [
    "SuitePolicy",
    "build_actor_critic",
    "build_env",
    "build_eval_env",
    "build_evaluator",
    "build_placement",
    "build_policy",
    "build_protocol",
    "build_randomizer",
    "build_rollout_envs",
    "build_runner",
    "check_base",
    "check_checkpoint",
    "check_method",
    "check_task",
    "dataset_dir",
    "demo_stats",
    "env_settings",
    "fresh_policy",
    "member_protocols",
    "member_settings",
    "numbered_episodes",
    "overlaps",
    "policy_fingerprint",
    "preflight",
    "rollout_store",
    "run_dir",
    "simulator_errors",
]
