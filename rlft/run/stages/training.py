"""The stages that learn: demonstrations, supervised training on them, PPO."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rlft.config.schema import RunConfig
from rlft.files import write_stage
from rlft.progress import Progress
from rlft.run import checkpoint
from rlft.run.assembly.envs import build_rollout_envs, check_task, env_settings, simulator_errors
from rlft.run.assembly.evaluation import build_eval_env
from rlft.run.assembly.learner import build_placement, build_randomizer, build_runner, dataset_dir
from rlft.run.assembly.policy import check_base, check_method, demo_stats, fresh_policy, preflight
from rlft.run.stages.common import resumed_from, stage
from rlft.run.stages.evaluation import evaluate_policy
from rlft.run.tracking import Tracker

if TYPE_CHECKING:
    from rlft.run.runner import Runner

log = logging.getLogger(__name__)

SAMPLE_EPISODES = 6


def collect_demos(cfg: RunConfig) -> None:
    """Plan and record demonstrations: ``dataset/`` and ``collect.json``."""
    from rlft.data.collect import collect
    from rlft.data.dataset import DemoSet

    with simulator_errors():
        check_task(cfg)  # before a run directory is made
    with stage(cfg, "collect") as run, Progress("collect") as progress:
        result = collect(cfg, env_settings(cfg, 1), run, dataset_dir(cfg), progress)
        if cfg.collect.save_video and cfg.env.cameras:
            from rlft.report.video import write_video

            demos = DemoSet.load(dataset_dir(cfg), 1)
            frames = int(demos.lengths[:SAMPLE_EPISODES].sum())  # one after the other, as the first camera saw them
            write_video(run / "demos.mp4", next(iter(demos.images.values()))[:frames].numpy(), fps=demos.meta.fps)
        write_stage(run, "collect", result)


def train_sft(cfg: RunConfig) -> None:
    """Train on the demonstrations: ``sft/checkpoints/`` and ``sft.json``."""
    from rlft.data.dataset import DemoSet
    from rlft.learn.sft import SftTrainer
    from rlft.policy.pretrained import load_pretrained, save_pretrained

    started = time.perf_counter()
    with stage(cfg, "sft") as run, Tracker.open(cfg, run) as tracker, Progress("sft") as progress:
        placement = build_placement(cfg)
        directory = run / "sft" / "checkpoints"
        resumed = resumed_from(cfg, directory)
        if resumed is None:
            check_base(cfg)
        demos = DemoSet.load(dataset_dir(cfg), cfg.n_action_steps)
        if resumed is None:
            policy = fresh_policy(cfg, demo_stats(cfg, demos), placement.policy)
        else:
            path = resumed / checkpoint.MODEL
            policy = load_pretrained(path, device=placement.policy, model=cfg.model, verified=True)
            check_method(cfg, policy.stats)
        randomizer = build_randomizer(cfg, "sft", placement)
        trainer = SftTrainer(policy, demos, cfg.sft, cfg.seed, randomizer)
        if resumed is not None:
            trainer.load_state_dict(checkpoint.load_state(resumed))
            tracker.drop_after("sft", trainer.step_count)
            if trainer.step_count >= cfg.sft.steps:
                log.warning("already complete: sft.steps=%d are done", cfg.sft.steps)
                return

        def on_step(step: int, scalars: Mapping[str, float]) -> None:
            last = step == cfg.sft.steps
            if last or step % cfg.sft.log_freq == 0:
                tracker.log("sft", step, scalars)
                progress.update(step, cfg.sft.steps, loss=scalars["loss"])
            if last or (cfg.sft.save_freq and step % cfg.sft.save_freq == 0):
                checkpoint.save(directory, step, partial(save_pretrained, policy), trainer.state_dict(), keep=1)

        final_loss = trainer.run(on_step)
        facts = {
            "steps": trainer.step_count,
            "final_loss": final_loss,
            "seconds": time.perf_counter() - started,
            "frames": len(demos),
            "precision": precision(cfg),
            "parameters": sum(p.numel() for p in policy.parameters()),
            "trained_parameters": sum(p.numel() for p in trainer.parameters),
        }
        write_stage(run, "sft", facts)


def train_rl(cfg: RunConfig) -> None:
    """Fine-tune by PPO: ``rl/checkpoints/``, ``rl.json``, and ``eval_rl.json`` of the final policy."""
    started = time.perf_counter()
    with stage(cfg, "rl") as run:
        build_placement(cfg)  # wrong devices are told first
        resumed = resumed_from(cfg, run / "rl" / "checkpoints")
        if resumed is not None:
            cfg = replace(cfg, model=replace(cfg.model, path=str(resumed / checkpoint.MODEL)))
        preflight(cfg)
        with ExitStack() as stack:
            envs = [stack.enter_context(closing(env)) for env in build_rollout_envs(cfg)]
            eval_env = stack.enter_context(closing(build_eval_env(cfg)))
            tracker = stack.enter_context(Tracker.open(cfg, run))
            progress = stack.enter_context(Progress("rl"))
            evaluate_now = partial(evaluate_policy, run, num_videos=cfg.eval.num_videos)
            verified = resumed is not None
            runner = build_runner(cfg, envs, eval_env, tracker, progress, evaluate_now, verified=verified)
            stack.enter_context(closing(runner.sampler))
            if resumed is not None:
                runner.load_state_dict(checkpoint.load_state(resumed))
                tracker.drop_after("rl", runner.state.iteration)
                tracker.drop_after("eval", runner.state.iteration)
                log.info("resumed from %s after %d iterations", resumed, runner.state.iteration)
            if runner.state.iteration >= cfg.train.n_train_itr:
                log.warning("already complete: train.n_train_itr=%d iterations are done", cfg.train.n_train_itr)
                return
            runner.run()
        write_stage(run, "rl", _rl_facts(runner) | {"seconds": time.perf_counter() - started})


def _rl_facts(runner: Runner) -> dict[str, Any]:
    state = runner.state
    return {
        "iterations": state.iteration,
        "env_steps": state.env_steps,
        "precision": precision(runner.cfg),
        "buffer": {"store": runner.store.store, "reason": runner.store.reason},
        "trained_parameters": sum(p.numel() for p in runner.objective.parameters() if p.requires_grad),
        "env_steps_per_s": state.env_steps / max(state.rollout_seconds, 1e-9),
        "samples_per_s_update": state.update_samples / max(state.update_seconds, 1e-9),
        "rollout_seconds": state.rollout_seconds,
        "update_seconds": state.update_seconds,
    }


def precision(cfg: RunConfig) -> dict[str, str]:
    """What weights and products are rounded to, for the record."""
    return {"dtype": cfg.model.dtype, "matmul": cfg.model.matmul}
