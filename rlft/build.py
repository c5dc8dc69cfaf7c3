"""The composition root: settings in, connected parts out. The only module of rlft that knows the simulators.

Heavy imports happen inside the functions, so that a stage loads only what it uses.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rlft.config.schema import RunConfig
from rlft.errors import ConfigError, RlftError
from rlft.placement import Placement, physics_backend
from rlft.seeding import seed_for
from rlft.types import CameraSettings, EnvSettings, EnvSpec, RewardSettings, VecEnv

if TYPE_CHECKING:
    from rlft.data.normalize import NormStats
    from rlft.evaluate import EvalResult, Evaluator, Protocol
    from rlft.policy.actor_critic import ActorCritic
    from rlft.policy.pi0 import Pi0Policy
    from rlft.progress import Progress
    from rlft.runner import PPORunner
    from rlft.tracking import Tracker

log = logging.getLogger(__name__)


def run_dir(cfg: RunConfig) -> Path:
    """Where this run's artefacts are."""
    return Path(cfg.output.dir) if cfg.output.dir else Path("outputs") / cfg.name


def dataset_dir(cfg: RunConfig) -> Path:
    """Where this run's demonstrations are."""
    return Path(cfg.dataset.path) if cfg.dataset.path else run_dir(cfg) / "dataset"


def env_settings(cfg: RunConfig, num_envs: int) -> EnvSettings:
    """What the simulator is told."""
    e, sim = cfg.env, cfg.sim
    return EnvSettings(
        simulator=e.simulator,
        env_id=e.id,
        num_envs=num_envs,
        max_episode_steps=e.max_episode_len,
        control_mode=e.control_mode,
        cameras=tuple(
            CameraSettings(c.name, c.height, c.width, c.fov, _triple(c.eye), _triple(c.target)) for c in e.cameras
        ),
        state_terms=tuple(e.state_terms),
        privileged=cfg.critic.inputs != "features",
        instruction=e.instruction,
        robot=e.robot,
        shader=e.shader,
        sim_backend=physics_backend(cfg),
        render_backend=sim.render_backend,
        sim_device=sim.device,
        num_workers=sim.num_workers if sim.num_workers is not None else _worker_count(num_envs),
        step_timeout_s=sim.step_timeout_s,
        max_restarts=sim.max_restarts,
        reward=RewardSettings(e.reward.mode, e.reward.scale, e.reward.success_bonus),
        episode_ends_on_success=e.episode_ends_on_success,
        make_kwargs=e.make_kwargs,
    )


def _triple(values: list[float] | None) -> tuple[float, float, float] | None:
    return None if values is None else (values[0], values[1], values[2])


def _worker_count(num_envs: int) -> int:
    return min(num_envs, len(os.sched_getaffinity(0)))


def build_env(cfg: RunConfig, num_envs: int) -> VecEnv:
    """The environments, started; see :func:`simulator_errors` for what can go wrong."""
    from rlft_envs.make import make_vec_env

    return make_vec_env(env_settings(cfg, num_envs))


@contextmanager
def simulator_errors() -> Iterator[None]:
    """Turn what the simulators raise into errors that a user is shown without a traceback.

    Raises:
        ConfigError: the simulator does not know what the settings name, or cannot run it on this machine.
        RlftError: its workers failed more often than sim.max_restarts allows.
    """
    from rlft_envs.errors import EnvSetupError, WorkerError

    try:
        yield
    except EnvSetupError as error:
        raise ConfigError(str(error)) from error
    except WorkerError as error:
        raise RlftError(str(error)) from error


def build_placement(cfg: RunConfig) -> Placement:
    """The devices, parsed and checked."""
    return Placement.from_config(cfg)


def build_policy(cfg: RunConfig, spec: EnvSpec, placement: Placement) -> Pi0Policy:
    """The policy: from ``model.path`` by a strict load, or fresh with random weights.

    Raises:
        ConfigError: the checkpoint does not fit the settings or the environment.
    """
    from rlft.policy.weights import load_pretrained

    if cfg.model.path is None:
        log.warning(
            "model.path=null: the policy starts from random weights and will hardly ever succeed; "
            "run scripts/train_sft.py first and pass model.path=<run>/sft/checkpoints/last/pretrained_model"
        )
        return fresh_policy(cfg, initial_stats(cfg, spec), placement.policy)
    policy = load_pretrained(
        Path(cfg.model.path),
        device=placement.policy,
        dtype=cfg.model.dtype,
        stats=None if cfg.dataset_stats is None else initial_stats(cfg, spec),
        tokenizer_path=cfg.model.tokenizer_path,
        train_vlm=cfg.model.train_vlm,
        recompute=cfg.model.gradient_checkpointing,
    )
    if cfg.n_action_steps != policy.horizon:
        raise ConfigError(
            f"n_action_steps={cfg.n_action_steps}, but the checkpoint {cfg.model.path} predicts H={policy.horizon} "
            f"steps; pass n_action_steps={policy.horizon}"
        )
    policy.stats.check(spec, allow_mismatch=cfg.allow_stats_mismatch)
    return policy


def initial_stats(cfg: RunConfig, spec: EnvSpec) -> NormStats:
    """Statistics of a policy without a checkpoint: the named file, or the environment's bounds."""
    from rlft.data.normalize import NormStats

    if cfg.dataset_stats is None:
        return NormStats.from_spec(spec)
    stats = NormStats.load(Path(cfg.dataset_stats))
    stats.check(spec, allow_mismatch=cfg.allow_stats_mismatch)
    return stats


def fresh_policy(cfg: RunConfig, stats: NormStats, device: torch.device) -> Pi0Policy:
    """A policy for new data: the weights of ``model.path`` (a pretrained base, lerobot's layout), or random ones."""
    from rlft.policy.factory import build_policy as make_policy
    from rlft.policy.weights import WEIGHTS

    return make_policy(
        cfg.model.kind,
        stats,
        horizon=cfg.n_action_steps,
        device=device,
        small=cfg.model.small,
        dtype=cfg.model.dtype,
        tokenizer_path=cfg.model.tokenizer_path,
        train_vlm=cfg.model.train_vlm,
        recompute=cfg.model.gradient_checkpointing,
        num_steps=cfg.num_steps_eval,
        seed=cfg.seed,
        weights=None if cfg.model.path is None else Path(cfg.model.path) / WEIGHTS,
    )


def build_actor_critic(cfg: RunConfig, policy: Pi0Policy, spec: EnvSpec, placement: Placement) -> ActorCritic:
    """The policy with its exploration noise and value head; the heads' first weights are named by the seed."""
    from rlft.policy.actor_critic import ActorCritic
    from rlft.policy.critic import Critic
    from rlft.policy.denoise import make_schedule
    from rlft.policy.noise import NoiseHead

    x, c = cfg.exploration, cfg.critic
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(cfg.seed, "heads"))
        noise = NoiseHead(policy.feature_dim, policy.action_width, x.std_min, x.std_max, learned=x.learn_std)
        critic = Critic(
            policy.feature_dim if c.inputs != "privileged" else 0,
            spec.privileged_dim if c.inputs != "features" else 0,
            c.hidden_dims,
        )
    schedule = make_schedule(x.method, cfg.num_steps, x.level).to(placement.policy)
    still = set(policy.stats.constant_action)
    explored = torch.tensor([dim for i, dim in enumerate(policy.act_dims) if i not in still])
    unexplored = torch.tensor([policy.act_dims[i] for i in sorted(still)], dtype=torch.int64)
    model = ActorCritic(policy, noise, critic, schedule, cfg.act_steps, explored, unexplored)
    return model.to(placement.policy)


def build_runner(
    cfg: RunConfig,
    env: VecEnv,
    eval_env: VecEnv,
    tracker: Tracker,
    progress: Progress,
    evaluate: Callable[[Evaluator, Pi0Policy, str], EvalResult],
) -> PPORunner:
    """The PPO runner with all its parts.

    Args:
        cfg: settings.
        env: training environments.
        eval_env: evaluation environments; others than the training ones.
        tracker: receives scalars.
        progress: shows how far the run is.
        evaluate: evaluates a policy under a label and keeps the result.
    """
    from rlft import checkpoint
    from rlft.evaluate import Evaluator
    from rlft.learn.ppo import PpoUpdater
    from rlft.policy.weights import save_pretrained
    from rlft.rollout.sampler import RolloutSampler
    from rlft.runner import PPORunner, RunState

    placement = build_placement(cfg)
    policy = build_policy(cfg, env.spec, placement)
    model = build_actor_critic(cfg, policy, env.spec, placement)
    sampler = RolloutSampler(
        env,
        model,
        placement,
        seed=cfg.seed,
        num_decisions=cfg.env.n_steps_rollout // cfg.act_steps,
        store_prefix=stores_prefix(cfg),
        reset_each_rollout=cfg.env.reset_at_iteration,
    )
    evaluator = Evaluator(eval_env, placement, build_protocol(cfg))
    directory, keep = run_dir(cfg) / "rl" / "checkpoints", cfg.train.keep_checkpoints

    def save(state: RunState) -> None:
        checkpoint.save(directory, state.iteration, partial(save_pretrained, policy), runner.state_dict(), keep=keep)

    runner = PPORunner(
        cfg,
        model,
        sampler,
        PpoUpdater(model, cfg.train, cfg.exploration.logprob),
        evaluate=partial(evaluate, evaluator, policy),
        save=save,
        tracker=tracker,
        progress=progress,
    )
    return runner


def stores_prefix(cfg: RunConfig) -> bool:
    """Whether the rollout keeps encoded prefixes: exact for every epoch while the VLM is frozen."""
    return cfg.buffer.store == "prefix" or (cfg.buffer.store == "auto" and not cfg.model.train_vlm)


def build_protocol(cfg: RunConfig) -> Protocol:
    """What an evaluation has to keep equal to be comparable."""
    from rlft.evaluate import Protocol

    e = cfg.eval
    return Protocol(e.episodes, e.seed, cfg.num_steps_eval, cfg.act_steps, e.num_videos)
