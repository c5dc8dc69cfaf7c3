"""The stages of the pipeline: each reads the artefact of the one before and leaves its own in the run directory."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlft import build, checkpoint
from rlft.config.evaluation import SuiteConfig
from rlft.config.load import dump
from rlft.config.schema import RunConfig
from rlft.errors import ConfigError, RlftError
from rlft.evaluate import EpisodeResult, EvalResult, Evaluator
from rlft.metrics import read_stage, wilson_interval, write_stage, write_text_atomically
from rlft.placement import Placement
from rlft.progress import Progress
from rlft.report.provenance import record_command
from rlft.report.rundir import VIDEO_NAME
from rlft.runlock import RunLock
from rlft.tracking import Tracker
from rlft.types import VecEnv

if TYPE_CHECKING:
    from rlft.data.dataset import DemoSet
    from rlft.policy.actor_critic import ActorCritic
    from rlft.policy.base import FlowPolicy
    from rlft.runner import PPORunner

log = logging.getLogger(__name__)

SAMPLE_EPISODES = 6

BEFORE = "sft"  # label of the evaluation before PPO


@contextmanager
def _stage(cfg: RunConfig, name: str) -> Iterator[Path]:
    """The run directory, held by this process, with the command on record."""
    run = build.run_dir(cfg)
    build.settle_cameras(cfg)
    with RunLock(run), build.simulator_errors():
        record_command(run, name)
        (run / "settings").mkdir(exist_ok=True)
        label = f"eval_{cfg.eval.label}" if name == "eval" else name
        write_text_atomically(run / "settings" / f"{label}.yaml", dump(cfg))
        yield run


@contextmanager
def closing_all(envs: Sequence[VecEnv]) -> Iterator[Sequence[VecEnv]]:
    """Close every group of environments, whatever happens."""
    with ExitStack() as stack:
        for env in envs:
            stack.enter_context(closing(env))
        yield envs


def _resumed(cfg: RunConfig, directory: Path) -> Path | None:
    """The checkpoint to continue from, or None to start anew.

    Raises:
        RlftError: there are checkpoints of an earlier run, and nobody said to continue it.
    """
    resumed = checkpoint.find_resume(cfg.resume, directory)
    if resumed is None and checkpoint.newest_valid(directory) is not None:
        raise RlftError(
            f"{directory} holds checkpoints of an earlier run; continue it with resume=auto, "
            "or choose another name or output.dir"
        )
    return resumed


def collect_demos(cfg: RunConfig) -> None:
    """Plan and record demonstrations: ``dataset/`` and ``collect.json``."""
    from rlft.data.collect import collect
    from rlft.data.dataset import DemoSet

    with _stage(cfg, "collect") as run, Progress("collect") as progress:
        result = collect(cfg, build.env_settings(cfg, 1), run, build.dataset_dir(cfg), progress)
        if cfg.collect.save_video and cfg.env.cameras:
            _sample_video(run / "demos.mp4", DemoSet.load(build.dataset_dir(cfg), 1))
        write_stage(run, "collect", result.to_dict())


def _sample_video(path: Path, demos: DemoSet) -> None:
    """The first demonstrations, one after the other, as the first camera saw them."""
    from rlft.report.video import write_video

    frames = int(demos.lengths[:SAMPLE_EPISODES].sum())
    write_video(path, next(iter(demos.images.values()))[:frames].numpy(), fps=demos.meta.fps)


def train_sft(cfg: RunConfig) -> None:
    """Warm up on the demonstrations: ``sft/checkpoints/`` and ``sft.json``."""
    from rlft.data.dataset import DemoSet
    from rlft.data.normalize import NormStats
    from rlft.learn.sft import SftTrainer
    from rlft.policy.weights import load_pretrained, save_pretrained

    started = time.perf_counter()
    with _stage(cfg, "sft") as run, Tracker.open(cfg, run) as tracker, Progress("sft") as progress:
        directory = run / "sft" / "checkpoints"
        resumed = _resumed(cfg, directory)
        placement = build.build_placement(cfg)
        demos = DemoSet.load(build.dataset_dir(cfg), cfg.n_action_steps)
        if resumed is None:
            policy = build.fresh_policy(cfg, NormStats.from_demos(demos), placement.policy)
        else:
            policy = load_pretrained(resumed / checkpoint.MODEL, device=placement.policy, dtype=cfg.model.dtype)
        randomizer = build.build_randomizer(cfg, "sft", placement, run)
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
            "parameters": sum(p.numel() for p in policy.parameters()),
            "trained_parameters": sum(p.numel() for p in trainer.parameters),
        }
        write_stage(run, "sft", facts)


def evaluate(cfg: RunConfig) -> None:
    """Evaluate ``model.path`` closed-loop: ``eval_<label>.json`` and videos, or the table of a whole suite."""
    with _stage(cfg, "eval") as run:
        placement = build.build_placement(cfg)
        if cfg.eval.suite is not None:
            _evaluate_suite(cfg, cfg.eval.suite, run, placement)
            return
        with closing(build.build_eval_env(cfg)) as env:
            policy = build.build_policy(cfg, env.spec, placement)
            evaluator = build.build_evaluator(cfg, env, placement)
            _evaluate_policy(run, evaluator, policy, cfg.eval.label, cfg.eval.num_videos, build.policy_fingerprint(cfg))


def _evaluate_suite(cfg: RunConfig, suite: SuiteConfig, run: Path, placement: Placement) -> None:
    """Every member of a suite, then ``eval_suite_<label>.json`` and ``.md``; what is done already is not run again."""
    from rlft.evaluate.suite import make_table, markdown, run_members

    fingerprint = build.policy_fingerprint(cfg)
    if fingerprint is None:
        raise ConfigError("eval.suite with model.path = null: give the checkpoint that the table is about")
    settings = {member.name: build.member_settings(cfg, member) for member in suite.members}
    hashes = {name: build.build_protocol(one, build.numbered_episodes(one)).hash for name, one in settings.items()}
    directory = run / "suites" / cfg.eval.label

    def evaluate_member(name: str) -> Mapping[str, Any]:
        one = settings[name]
        with closing(build.build_eval_env(one)) as env:
            policy = build.build_policy(one, env.spec, placement)
            evaluator = build.build_evaluator(one, env, placement)
            _evaluate_policy(directory, evaluator, policy, name, one.eval.num_videos, fingerprint)
        return read_stage(directory, f"eval_{name}")

    results = run_members(
        list(settings),
        hashes,
        fingerprint,
        directory,
        evaluate_member,
        lambda name: log.info("%s: done already, with this protocol and these weights", name),
    )
    table = make_table(cfg.eval.label, suite.name, fingerprint, [(m.name, m.group) for m in suite.members], results)
    write_stage(run, f"eval_suite_{cfg.eval.label}", table.to_dict())
    text = markdown(table)
    write_text_atomically(run / f"eval_suite_{cfg.eval.label}.md", text)
    log.info("%s", text)


def train_rl(cfg: RunConfig) -> None:
    """Fine-tune by PPO: ``rl/checkpoints/``, ``rl.json``, and ``eval_rl.json`` of the final policy."""
    started = time.perf_counter()
    with _stage(cfg, "rl") as run:
        resumed = _resumed(cfg, run / "rl" / "checkpoints")
        if resumed is not None:
            cfg.model.path = str(resumed / checkpoint.MODEL)
        with (
            closing_all(build.build_rollout_envs(cfg)) as envs,
            closing(build.build_eval_env(cfg)) as eval_env,
            Tracker.open(cfg, run) as tracker,
            Progress("rl") as progress,
        ):
            evaluate_now = partial(_evaluate_policy, run, num_videos=cfg.eval.num_videos)
            runner = build.build_runner(cfg, envs, eval_env, tracker, progress, evaluate_now)
            if resumed is not None:
                runner.load_state_dict(checkpoint.load_state(resumed))
                tracker.drop_after("rl", runner.state.iteration)
                tracker.drop_after("eval", runner.state.iteration)
                log.info("resumed from %s after %d iterations", resumed, runner.state.iteration)
            if runner.state.iteration >= cfg.train.n_train_itr:
                log.warning("already complete: train.n_train_itr=%d iterations are done", cfg.train.n_train_itr)
                return
            runner.run()
        write_stage(run, "rl", _rl_facts(runner, time.perf_counter() - started))


def report(cfg: RunConfig) -> None:
    """Gather the run directory into ``summary.json``, ``report.html`` and ``report.png``."""
    from rlft.report.build import build_report

    paths = build_report(build.run_dir(cfg))
    log.info("report: %s", paths.html)


def _evaluate_policy(
    run: Path, evaluator: Evaluator, policy: FlowPolicy, label: str, num_videos: int, fingerprint: str | None = None
) -> EvalResult:
    """Evaluate, with a result file, and videos of failures first."""
    with Progress(f"evaluate {label}") as progress:
        result = evaluator.run(
            policy,
            label,
            fingerprint=fingerprint,
            on_progress=lambda done, total, wins: progress.update(
                done, total, success=wins / max(1, done), ci95=wilson_interval(wins, done) if done else (0.0, 1.0)
            ),
        )
    started = time.perf_counter()
    _record_videos(run, evaluator, policy, result, num_videos)
    result.seconds += time.perf_counter() - started
    write_stage(run, f"eval_{label}", result.to_dict())
    low, high = result.ci95
    log.info(
        "%s: %d of %d episodes succeed, %.1f %% [%.1f, %.1f]; protocol %s",
        label,
        result.successes,
        result.episodes,
        *(100.0 * x for x in (result.success, low, high)),
        result.protocol_hash[:12],
    )
    return result


def _record_videos(run: Path, evaluator: Evaluator, policy: FlowPolicy, result: EvalResult, num_videos: int) -> None:
    """Videos of failures first, and of the episodes that were recorded before PPO: these can be seen side by side."""
    from rlft.report.video import write_video

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
    found = ((path, VIDEO_NAME.fullmatch(path.name)) for path in (run / "videos").glob("*.mp4"))
    return {int(match["index"]): path for path, match in found if match is not None and match["label"] == label}


def _rl_facts(runner: PPORunner, seconds: float) -> dict[str, Any]:
    state, model = runner.state, runner.model
    return {
        "iterations": state.iteration,
        "env_steps": state.env_steps,
        "buffer": {"store": runner.store.store, "reason": runner.store.reason},
        "seconds": seconds,
        "trained_parameters": _count(model),
        "env_steps_per_s": state.env_steps / max(state.rollout_seconds, 1e-9),
        "samples_per_s_update": state.update_samples / max(state.update_seconds, 1e-9),
        "rollout_seconds": state.rollout_seconds,
        "update_seconds": state.update_seconds,
    }


def _count(model: ActorCritic) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
