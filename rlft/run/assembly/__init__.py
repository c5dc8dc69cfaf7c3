"""The composition root: settings in, connected parts out. Here parts meet that know nothing of each other.

Heavy imports happen inside the functions, so that a stage loads only what it uses.
"""

from rlft.run.assembly.envs import (
    build_env,
    build_rollout_envs,
    check_task,
    configuration_space,
    env_settings,
    overlaps,
    simulator_errors,
)
from rlft.run.assembly.evaluation import (
    build_eval_env,
    build_evaluator,
    build_protocol,
    member_protocols,
    member_settings,
    policy_fingerprint,
)
from rlft.run.assembly.learner import (
    build_placement,
    build_runner,
    dataset_dir,
    rollout_store,
    run_dir,
)
from rlft.run.assembly.policy import (
    build_policy,
    check_base,
    check_checkpoint,
    check_method,
    check_stats,
    demo_stats,
    fresh_policy,
    preflight,
)
from rlft.run.assembly.randomization import build_randomizer

__all__ = [
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
    "check_stats",
    "check_task",
    "configuration_space",
    "dataset_dir",
    "demo_stats",
    "env_settings",
    "fresh_policy",
    "member_protocols",
    "member_settings",
    "overlaps",
    "policy_fingerprint",
    "preflight",
    "rollout_store",
    "run_dir",
    "simulator_errors",
]
