"""The stages of the pipeline: each reads the artefact of the one before and leaves its own in the run directory."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from rlft import build, checkpoint
from rlft.config.schema import RunConfig
from rlft.evaluate import EvalResult, Evaluator, Protocol
from rlft.metrics import write_stage
from rlft.policy.base import FlowPolicy
from rlft.progress import Progress
from rlft.tracking import Tracker

log = logging.getLogger(__name__)


def collect_demos(cfg: RunConfig) -> None:
    """Plan and record demonstrations: ``dataset/`` and ``collect.json``."""
    from rlft.data.collect import collect

    run = build.run_dir(cfg)
    with Progress("collect") as progress:
        result = collect(cfg, build.env_settings(cfg, 1), run, build.dataset_dir(cfg), progress)
    write_stage(run, "collect", result.to_dict())


def train_sft(cfg: RunConfig) -> None:
    """Warm up on the demonstrations: ``sft/checkpoints/`` and ``sft.json``."""
    from rlft.data.dataset import DemoSet
    from rlft.data.normalize import NormStats
    from rlft.learn.sft import SftTrainer

    run, started = build.run_dir(cfg), time.perf_counter()
    placement = build.build_placement(cfg)
    demos = DemoSet.load(build.dataset_dir(cfg), cfg.n_action_steps)
    stats = NormStats.from_demos(demos)
    policy = build.fresh_policy(cfg, stats, placement.policy)
    trainer = SftTrainer(policy, demos, cfg.sft, cfg.seed)
    with Tracker.open(cfg, run) as tracker, Progress("sft") as progress:

        def on_step(step: int, scalars: dict[str, float]) -> None:
            if step % cfg.sft.log_freq == 0 or step == cfg.sft.steps:
                tracker.log("sft", step, scalars)
                progress.update(step, cfg.sft.steps, loss=scalars["loss"])

        final_loss = trainer.run(on_step)
    checkpoint.save(
        run / "sft" / "checkpoints", trainer.step_count, policy.save_pretrained, trainer.state_dict(), keep=1
    )
    write_stage(
        run,
        "sft",
        {
            "steps": trainer.step_count,
            "final_loss": final_loss,
            "seconds": time.perf_counter() - started,
            "frames": len(demos),
            "parameters": sum(p.numel() for p in policy.parameters()),
            "trained_parameters": sum(p.numel() for p in trainer.parameters),
        },
    )


def evaluate(cfg: RunConfig) -> EvalResult:
    """Evaluate ``model.path`` closed-loop: ``eval_<label>.json`` and videos."""
    placement = build.build_placement(cfg)
    env = build.build_env(cfg, cfg.eval.num_envs)
    try:
        policy = build.build_policy(cfg, env.spec, placement)
        return _evaluate_policy(cfg, Evaluator(env, placement, _protocol(cfg)), policy, cfg.eval.label)
    finally:
        env.close()


def train_rl(cfg: RunConfig) -> None:
    """Fine-tune by PPO: ``rl/checkpoints/``, ``rl.json``, and the evaluations before and after."""
    from rlft.learn.ppo import PpoUpdater
    from rlft.rollout.sampler import RolloutSampler
    from rlft.runner import PPORunner, RunState

    run, started = build.run_dir(cfg), time.perf_counter()
    checkpoints = run / "rl" / "checkpoints"
    placement = build.build_placement(cfg)
    resumed = checkpoint.newest_valid(checkpoints) if cfg.resume == "auto" else None
    if resumed is not None:
        cfg.model.path = str(resumed / "pretrained_model")
    env = build.build_env(cfg, cfg.env.num_envs)
    eval_env = build.build_env(cfg, cfg.eval.num_envs)
    try:
        policy = build.build_policy(cfg, env.spec, placement)
        model = build.build_actor_critic(cfg, policy, env.spec, placement)
        sampler = RolloutSampler(
            env,
            model,
            placement,
            seed=cfg.seed,
            num_decisions=cfg.env.n_steps_rollout // cfg.act_steps,
            store_prefix=_stores_prefix(cfg),
            reset_each_rollout=cfg.env.reset_at_iteration,
        )
        evaluator = Evaluator(eval_env, placement, _protocol(cfg))
        with Tracker.open(cfg, run) as tracker, Progress("rl") as progress:
            runner = PPORunner(
                cfg,
                model,
                sampler,
                PpoUpdater(model, cfg.train, cfg.exploration.logprob),
                evaluate=lambda label: _evaluate_policy(cfg, evaluator, policy, label),
                save=lambda state: checkpoint.save(
                    checkpoints,
                    state.iteration,
                    policy.save_pretrained,
                    runner.state_dict(),
                    keep=cfg.train.keep_checkpoints,
                ),
                tracker=tracker,
                progress=progress,
            )
            if resumed is not None:
                runner.load_state_dict(checkpoint.load_state(resumed))
                log.info("resumed from %s, iteration %d", resumed, runner.state.iteration)
            state: RunState = runner.run()
    finally:
        env.close()
        eval_env.close()
    write_stage(run, "rl", _rl_summary(state, model, time.perf_counter() - started))


def report(cfg: RunConfig) -> None:
    """Gather the run directory into ``summary.json``, ``report.html`` and ``report.png``."""
    from rlft.report import build_report

    build_report(build.run_dir(cfg))


def _protocol(cfg: RunConfig) -> Protocol:
    e = cfg.eval
    return Protocol(e.episodes, e.seed, cfg.num_steps_eval, cfg.act_steps, e.num_videos)


def _stores_prefix(cfg: RunConfig) -> bool:
    return cfg.buffer.store == "prefix" or (cfg.buffer.store == "auto" and not cfg.model.train_vlm)


def _evaluate_policy(cfg: RunConfig, evaluator: Evaluator, policy: FlowPolicy, label: str) -> EvalResult:
    from rlft.report.video import write_video

    run = build.run_dir(cfg)

    def on_video(index: int, success: bool, frames: np.ndarray) -> None:
        name = f"{label}_{index}_{'success' if success else 'failure'}.mp4"
        for old in (run / "videos").glob(f"{label}_{index}_*.mp4"):
            old.unlink()
        write_video(run / "videos" / name, frames, fps=20)

    with Progress(f"evaluate {label}") as progress:
        result = evaluator.run(
            policy,
            label,
            on_progress=lambda done, total, wins: progress.update(done, total, success=wins / max(1, done)),
            on_video=on_video,
        )
    write_stage(run, f"eval_{label}", result.to_dict())
    return result


def _rl_summary(state: Any, model: Any, seconds: float) -> dict[str, Any]:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "iterations": state.iteration,
        "env_steps": state.env_steps,
        "seconds": seconds,
        "trained_parameters": trained,
        "env_steps_per_s": state.env_steps / max(state.rollout_seconds, 1e-9),
        "samples_per_s_update": state.update_samples / max(state.update_seconds, 1e-9),
    }


