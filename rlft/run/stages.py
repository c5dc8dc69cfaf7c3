"""The stages of the pipeline: each reads the artefact of the one before and leaves its own in the run directory."""

import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from rlft.config.load import dump
from rlft.config.schema import RunConfig, SuiteConfig
from rlft.data.collect import collect
from rlft.data.dataset import DemoSet
from rlft.errors import ConfigError, RlftError, require_extra
from rlft.evaluate.loop import Evaluator
from rlft.evaluate.result import EpisodeResult, EvalResult, strata_text, summary_line
from rlft.evaluate.suite import make_table, markdown, run_members
from rlft.files import read_stage, write_stage, write_text_atomically
from rlft.learn.sft import SftTrainer
from rlft.placement import Placement
from rlft.policy.base import FlowPolicy
from rlft.policy.pretrained import family_of, load_pretrained, save_pretrained
from rlft.progress import Progress
from rlft.report.rundir import list_videos
from rlft.report.video import write_video
from rlft.run import checkpoint
from rlft.run.assembly.envs import build_eval_env, build_rollout_envs, check_task, env_settings
from rlft.run.assembly.evaluation import build_evaluator, member_protocols, member_settings, policy_fingerprint
from rlft.run.assembly.learner import build_placement, build_randomizer, build_runner, dataset_dir, run_dir
from rlft.run.assembly.policy import (
    build_policy,
    check_checkpoint,
    check_method,
    check_stats,
    demo_stats,
    fresh_policy,
    preflight,
)
from rlft.run.provenance import record_command
from rlft.run.runner import Runner
from rlft.run.tracking import Tracker
from rlft.statistics import wilson_interval

log = logging.getLogger(__name__)

BEFORE = "sft"  # label of the evaluation before PPO
FREE_BYTES = 64 * 2**20  # a run that is about to fill its disk does not start
SAMPLE_EPISODES = 6  # of the demonstrations, in the sample video


def collect_demos(cfg: RunConfig) -> None:
    """Plan and record demonstrations: ``dataset/`` and ``collect.json``."""
    check_task(cfg)  # before a run directory is made
    with stage(cfg, "collect") as run, Progress("collect") as progress:
        result = collect(cfg, env_settings(cfg, 1), run, dataset_dir(cfg), progress)
        if cfg.collect.save_video and cfg.env.cameras:
            demos = DemoSet.load(dataset_dir(cfg), 1)
            frames = int(demos.lengths[:SAMPLE_EPISODES].sum())  # one after the other, as the first camera saw them
            write_video(run / "demos.mp4", next(iter(demos.images.values()))[:frames].numpy(), fps=demos.meta.fps)
        write_stage(run, "collect", result)


def train_sft(cfg: RunConfig) -> None:
    """Train on the demonstrations: ``sft/checkpoints/`` and ``sft.json``."""
    started = time.perf_counter()
    with stage(cfg, "sft") as run, Tracker.open(cfg, run) as tracker, Progress("sft") as progress:
        placement = build_placement(cfg)
        directory = run / "sft" / "checkpoints"
        resumed = checkpoint.find_resume(cfg.resume, directory)
        if resumed is None and cfg.model.path is not None:  # keys and shapes, before demonstrations are read
            family_of(cfg.model.kind).check(Path(cfg.model.path), None, cfg.model)
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
        resumed = checkpoint.find_resume(cfg.resume, run / "rl" / "checkpoints")
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


def evaluate(cfg: RunConfig) -> None:
    """Evaluate ``model.path`` closed-loop: ``eval_<label>.json`` and videos, or the table of a whole suite."""
    with stage(cfg, "eval") as run:
        placement = build_placement(cfg)
        if cfg.eval.suite is not None:
            _evaluate_suite(cfg, cfg.eval.suite, run, placement)
            return
        preflight(cfg)
        with closing(build_eval_env(cfg)) as env:
            policy = build_policy(cfg, env.spec, placement)
            evaluator = build_evaluator(cfg, env, placement)
            fingerprint = policy_fingerprint(cfg)
            result = evaluate_policy(run, evaluator, policy, cfg.eval.label, cfg.eval.num_videos, fingerprint)
        if tables := strata_text(result):
            log.info("success by stratum, with 95 %% intervals\n%s", tables)


def _evaluate_suite(cfg: RunConfig, suite: SuiteConfig, run: Path, placement: Placement) -> None:
    """Every member of a suite, then ``eval_suite_<label>.json`` and ``.md``; what is done already is not run again."""
    if cfg.eval.num_videos:
        require_extra("report", "av")
    check_checkpoint(cfg, other_task=True)
    settings = {member.name: member_settings(cfg, member) for member in suite.members}
    hashes = {name: protocol.hash for name, protocol in member_protocols(settings).items()}
    fingerprint = policy_fingerprint(cfg)
    if fingerprint is None:
        raise ConfigError("eval.suite with model.path = null: give the checkpoint that the table is about")
    directory = run / "suites" / cfg.eval.label
    policy: FlowPolicy | None = None  # one for all members, loaded when the first one's environments are there

    def evaluate_member(name: str) -> EvalResult:
        one = settings[name]
        log.info("%s: member %d of %d, %s", name, 1 + list(settings).index(name), len(settings), one.env.id)
        with closing(build_eval_env(one)) as env:
            nonlocal policy
            policy = policy or build_policy(one, env.spec, placement, other_task=True)
            check_stats(one, policy.stats, env.spec, other_task=True)
            evaluator = build_evaluator(one, env, placement)
            return evaluate_policy(directory, evaluator, policy, name, one.eval.num_videos, fingerprint)

    results = run_members(hashes, fingerprint, directory, evaluate_member)
    table = make_table(cfg.eval.label, suite.name, fingerprint, [(m.name, m.group) for m in suite.members], results)
    write_stage(run, f"eval_suite_{cfg.eval.label}", asdict(table))
    write_text_atomically(run / f"eval_suite_{cfg.eval.label}.md", text := markdown(table))
    log.info("%s", text)


def report(cfg: RunConfig) -> None:
    """Gather the run directory into ``summary.json``, ``report.html`` and ``report.png``."""
    from rlft.report.build import build_report  # draws, with an extra of the distribution

    log.info("report: %s", build_report(run_dir(cfg)))


def evaluate_policy(
    run: Path, evaluator: Evaluator, policy: FlowPolicy, label: str, num_videos: int, fingerprint: str | None = None
) -> EvalResult:
    """Evaluate, with a result file, and videos of failures first."""
    with Progress(f"evaluate {label}") as progress:

        def on_progress(done: int, total: int, wins: int) -> None:
            interval = wilson_interval(wins, done) if done else (0.0, 1.0)
            progress.update(done, total, success=wins / max(1, done), ci95=interval)

        result = evaluator.run(policy, label, fingerprint=fingerprint, on_progress=on_progress)
    started = time.perf_counter()
    _record_videos(run, evaluator, policy, result, num_videos)
    result.seconds += time.perf_counter() - started
    write_stage(run, f"eval_{label}", asdict(result))
    log.info("%s", summary_line(result))
    return result


def _record_videos(run: Path, evaluator: Evaluator, policy: FlowPolicy, result: EvalResult, num_videos: int) -> None:
    """Videos of failures first, and of the episodes that were recorded before PPO: these can be seen side by side."""
    outcomes = {e.index: e.success_once for e in result.per_episode}
    for old in _videos_of(run, result.label).values():
        old.unlink()

    def on_video(episode: EpisodeResult, frames: np.ndarray) -> None:
        if episode.success_once != outcomes[episode.index]:
            log.warning("episode %d (seed %d) went otherwise when it was recorded", episode.index, episode.seed)
        name = f"{result.label}_{episode.index}_{'success' if episode.success_once else 'failure'}.mp4"
        write_video(run / "videos" / name, frames, fps=evaluator.env.spec.control_hz)

    chosen = result.failures_first()[:num_videos]
    if num_videos and result.label != BEFORE and (run / f"eval_{BEFORE}.json").is_file():
        before = read_stage(run, f"eval_{BEFORE}")
        if before.get("protocol_hash") == result.protocol_hash:
            chosen += [i for i in sorted(_videos_of(run, BEFORE)) if i not in chosen]
    evaluator.replay(policy, chosen, on_video)


def _videos_of(run: Path, label: str) -> dict[int, Path]:
    return {video.index: video.path for video in list_videos(run / "videos") if video.label == label}


@contextmanager
def stage(cfg: RunConfig, name: str) -> Iterator[Path]:
    """The run directory, held by this process, with the command on record; errors as of :func:`run_lock`."""
    if cfg.wandb is not None and name in ("sft", "rl"):
        require_extra("wandb", "wandb")
    run = run_dir(cfg)
    with run_lock(run):
        record_command(run, name)
        label = f"eval_{cfg.eval.label}" if name == "eval" else name
        write_text_atomically(run / "settings" / f"{label}.yaml", dump(cfg))
        yield run


class RunInUseError(RlftError):
    """Another process holds the run directory."""

    exit_code = 2


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold a run directory, which is made where it is missing; the kernel lets go of it however the process ends.

    Raises:
        RunInUseError: another process holds it.
        RlftError: it cannot be made, written or locked, or its disk is almost full.
    """
    path = Path(run_dir) / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # filelock would fall back to a lock by the file's existence, which outlives a kill.
        held = FileLock(path, timeout=0, fallback_to_soft=False).acquire()
        path.write_text(f"{os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        free = shutil.disk_usage(path.parent).free
    except Timeout:
        holder = path.read_text(encoding="utf-8", errors="replace").strip() or "unknown"
        raise RunInUseError(
            f"{path.parent}: in use by process {holder}; wait, or give this run another name or output.dir"
        ) from None
    except OSError as error:
        reason = f"cannot be written or locked ({error.strerror}); choose another one"
        raise RlftError(f"output.dir = {path.parent}: {reason}") from error
    with held:
        if free < FREE_BYTES:
            few = f"only {free / 2**20:.0f} MiB free, {FREE_BYTES / 2**20:.0f} MiB are needed"
            raise RlftError(f"output.dir = {path.parent}: {few}; free some, or choose another output.dir")
        yield
