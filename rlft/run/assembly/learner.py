"""Where a run is kept, and its runner with all parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rlft.config.schema import RunConfig
from rlft.placement import Placement
from rlft.run.assembly.envs import overlaps, policy_threads
from rlft.run.assembly.evaluation import build_evaluator
from rlft.run.assembly.policy import build_policy
from rlft.run.assembly.randomization import build_randomizer
from rlft.types import EnvSpec, VecEnv

if TYPE_CHECKING:
    from rlft.evaluate import EvalResult, Evaluator
    from rlft.objective.base import Objective
    from rlft.policy.base import FlowPolicy
    from rlft.progress import Progress
    from rlft.rollout.sampler import RolloutSampler
    from rlft.rollout.store import StoreChoice
    from rlft.run.runner import Runner
    from rlft.run.tracking import Tracker

log = logging.getLogger(__name__)


def run_dir(cfg: RunConfig) -> Path:
    """Where this run's artefacts are."""
    return Path(cfg.output.dir) if cfg.output.dir else Path("outputs") / cfg.name


def dataset_dir(cfg: RunConfig) -> Path:
    """Where this run's demonstrations are."""
    return Path(cfg.dataset.path) if cfg.dataset.path else run_dir(cfg) / "dataset"


def build_placement(cfg: RunConfig) -> Placement:
    """The devices, parsed and checked; the policy's becomes this thread's own, and products get their precision."""
    placement = Placement.from_config(cfg)
    placement.activate()
    torch.set_float32_matmul_precision(cfg.model.matmul)
    return placement


def build_runner(
    cfg: RunConfig,
    envs: Sequence[VecEnv],
    eval_env: VecEnv,
    tracker: Tracker,
    progress: Progress,
    evaluate: Callable[[Evaluator, FlowPolicy, str], EvalResult],
    *,
    verified: bool = False,
) -> Runner:
    """The runner with all its parts.

    Args:
        cfg: settings.
        envs: training environments, in their groups.
        eval_env: evaluation environments; others than the training ones.
        tracker: receives scalars.
        progress: shows how far the run is.
        evaluate: evaluates a policy under a label and keeps the result.
        verified: see :func:`rlft.policy.pretrained.load_pretrained`.
    """
    from rlft.learn.updater import Updater
    from rlft.objective.build import build_objective
    from rlft.policy.pretrained import save_pretrained
    from rlft.run import checkpoint
    from rlft.run.guards import Probe
    from rlft.run.runner import Runner, RunState

    placement = build_placement(cfg)
    spec = envs[0].spec
    policy = build_policy(cfg, spec, placement, verified=verified)
    objective = build_objective(cfg, policy, spec.privileged_dim)
    store = rollout_store(cfg, placement, policy, spec)
    evaluator = build_evaluator(cfg, eval_env, placement)

    def probe(episodes: int) -> Probe:
        shorter = build_evaluator(probe_settings(cfg, episodes), eval_env, placement)
        clean, noisy = (shorter.run(policy, "probe", explore=how) for how in (None, objective.actor))
        return Probe(clean.episodes, noisy.success, clean.success)

    def save(state: RunState, best: bool) -> None:
        write, directory = partial(save_pretrained, policy), run_dir(cfg) / "rl" / "checkpoints"
        keep = cfg.train.keep_checkpoints
        checkpoint.save(directory, state.iteration, write, runner.state_dict(), keep=keep, best=best)

    runner = Runner(
        cfg,
        objective,
        build_sampler(cfg, envs, objective, placement, store),
        Updater(objective, cfg.train, cfg.guard),
        store=store,
        evaluate=partial(evaluate, evaluator, policy),
        probe=probe,
        save=save,
        tracker=tracker,
        progress=progress,
    )
    return runner


def probe_settings(cfg: RunConfig, episodes: int) -> RunConfig:
    """The settings of a probe: evaluation's own, with fewer episodes."""
    select = "stratified" if cfg.eval.select == "all" else cfg.eval.select
    return replace(cfg, eval=replace(cfg.eval, episodes=min(episodes, cfg.eval.episodes), select=select))


def build_sampler(
    cfg: RunConfig, envs: Sequence[VecEnv], objective: Objective, placement: Placement, store: StoreChoice
) -> RolloutSampler:
    """What collects rollouts from these environments."""
    from rlft.rollout.sampler import RolloutSampler

    return RolloutSampler(
        envs,
        objective,
        placement,
        seed=cfg.seed,
        num_decisions=cfg.env.n_steps_rollout // cfg.act_steps,
        store_prefix=store.prefix,
        reset_each_rollout=cfg.env.reset_at_iteration,
        overlap=overlaps(cfg),
        policy_threads=policy_threads(cfg),
        randomizer=build_randomizer(cfg, "rollout", placement, run_dir(cfg)),
        even_batches=cfg.model.compile,
    )


def rollout_store(cfg: RunConfig, placement: Placement, policy: FlowPolicy, spec: EnvSpec) -> StoreChoice:
    """Decide what the rollout keeps, from the memory that is free now; says so in the log."""
    from rlft.memory import free_bytes
    from rlft.plan.rollout import rollout_bytes
    from rlft.rollout.store import choose_store

    tokens = policy.prompt_length or None  # known from the demonstrations
    needed = {
        store: rollout_bytes(cfg, policy, store=store, privileged_dim=spec.privileged_dim, tokens=tokens)
        for store in ("prefix", "images")
    }
    choice = choose_store(
        cfg.buffer.store,
        train_vlm=cfg.model.train_vlm,
        needed=needed,
        free=free_bytes(placement.buffer),
        device=str(placement.buffer),
    )
    log.info("the rollout stores %s: %s", choice.store, choice.reason)
    return choice
