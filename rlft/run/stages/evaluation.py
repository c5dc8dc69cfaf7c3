"""The stages that measure: closed-loop evaluation, whole suites of them, and the report."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlft.config.evaluation import SuiteConfig
from rlft.config.schema import RunConfig
from rlft.errors import ConfigError, require_extra
from rlft.evaluate.loop import Evaluator
from rlft.evaluate.result import EpisodeResult, EvalResult, strata_text, summary_line
from rlft.files import read_stage, write_stage, write_text_atomically
from rlft.placement import Placement
from rlft.progress import Progress
from rlft.report.rundir import list_videos
from rlft.run.assembly.evaluation import (
    build_eval_env,
    build_evaluator,
    member_protocols,
    member_settings,
    policy_fingerprint,
)
from rlft.run.assembly.learner import build_placement, run_dir
from rlft.run.assembly.policy import build_policy, check_checkpoint, check_stats, preflight
from rlft.run.stages.common import stage
from rlft.statistics import wilson_interval

if TYPE_CHECKING:
    from rlft.policy.base import FlowPolicy

log = logging.getLogger(__name__)

BEFORE = "sft"  # label of the evaluation before PPO


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
    from rlft.evaluate.suite import make_table, markdown, run_members

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
    from rlft.report.build import build_report

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
    return {video.index: video.path for video in list_videos(run / "videos") if video.label == label}
