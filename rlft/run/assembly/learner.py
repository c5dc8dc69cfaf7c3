"""Where a run is kept, and its runner with all parts."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from rlft.assets.sources import assets_root
from rlft.config.schema import RunConfig, enabled_effects
from rlft.data.randomize.randomizer import ImageRandomizer
from rlft.evaluate.loop import Evaluator
from rlft.evaluate.result import EvalResult
from rlft.learn.updater import Updater
from rlft.objective.base import Objective, build_objective
from rlft.placement import Placement, free_bytes, overlaps
from rlft.plan.network import rollout_bytes
from rlft.policy.base import FlowPolicy
from rlft.policy.pretrained import save_pretrained
from rlft.progress import Progress
from rlft.rollout.sampler import RolloutSampler
from rlft.rollout.store import StoreChoice, choose_store
from rlft.run import checkpoint
from rlft.run.assembly.envs import policy_threads
from rlft.run.assembly.evaluation import build_evaluator
from rlft.run.assembly.policy import build_policy
from rlft.run.guards import Probe
from rlft.run.runner import Runner, RunState
from rlft.run.tracking import Tracker
from rlft.types import EnvSpec, VecEnv

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

    ``envs`` are the training environments in their groups, ``eval_env`` others; ``evaluate`` evaluates a policy under a
    label and keeps the result; for ``verified`` see :func:`rlft.policy.pretrained.load_pretrained`.
    """
    placement = build_placement(cfg)
    spec = envs[0].spec
    policy = build_policy(cfg, spec, placement, verified=verified)
    objective = build_objective(cfg, policy, spec.privileged_dim)
    evaluator = build_evaluator(cfg, eval_env, placement)
    store = rollout_store(cfg, placement, policy, spec)

    def probe(episodes: int) -> Probe:
        select = "stratified" if cfg.eval.select == "all" else cfg.eval.select
        fewer = replace(cfg.eval, episodes=min(episodes, cfg.eval.episodes), select=select)
        shorter = build_evaluator(replace(cfg, eval=fewer), eval_env, placement)
        clean, noisy = (shorter.run(policy, "probe", explore=how) for how in (None, objective.actor))
        return Probe(clean.episodes, noisy.success, clean.success)

    def save(state: RunState, best: bool) -> None:
        directory, write = run_dir(cfg) / "rl" / "checkpoints", partial(save_pretrained, policy)
        checkpoint.save(directory, state.iteration, write, runner.state_dict(), cfg.train.keep_checkpoints, best)

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


def build_sampler(
    cfg: RunConfig, envs: Sequence[VecEnv], objective: Objective, placement: Placement, store: StoreChoice
) -> RolloutSampler:
    """What collects rollouts from these environments."""
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
        randomizer=build_randomizer(cfg, "rollout", placement),
        even_batches=cfg.model.compile,
    )


def rollout_store(cfg: RunConfig, placement: Placement, policy: FlowPolicy, spec: EnvSpec) -> StoreChoice:
    """Decide what the rollout keeps, from the memory that is free now; says so in the log."""
    tokens = policy.prompt_length or None  # known from the demonstrations
    needed = {
        store: rollout_bytes(cfg, policy, store=store, privileged_dim=spec.privileged_dim, tokens=tokens)
        for store in ("prefix", "images")
    }
    free, device = free_bytes(placement.buffer), str(placement.buffer)
    choice = choose_store(cfg.buffer.store, train_vlm=cfg.model.train_vlm, needed=needed, free=free, device=device)
    log.info("the rollout stores %s: %s", choice.store, choice.reason)
    return choice


def build_randomizer(cfg: RunConfig, stage: str, placement: Placement) -> ImageRandomizer | None:
    """What changes the images of a stage, or None where the settings leave them as they are.

    ``rollout`` or ``sft`` names the random numbers and the contact sheet. Images are changed on the policy's device.

    Raises:
        ConfigError: a folder or an image of the settings cannot be read.
    """
    section = cfg.domain_randomization
    if section is None or not {"rollout": section.rollout, "sft": section.sft}[stage]:
        return None
    log.info("images of %s are randomised: %s", stage, ", ".join(enabled_effects(section)))
    return ImageRandomizer(
        section,
        seed=cfg.seed,
        purpose="domain-randomization" if stage == "rollout" else "domain-randomization-sft",
        device=placement.policy,
        assets=assets_root(cfg.assets.root),
        sheet=run_dir(cfg) / f"randomization_{stage}.png",
    )
