"""Collects demonstrations in worker processes and writes them as one dataset.

Attempts are numbered; attempt i always has the same seed, and the dataset holds the first successes in the order
of their numbers. So it does not depend on how many processes work, nor on where a collection was interrupted.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlft.config.schema import CollectConfig, RunConfig
from rlft.data.crew import CollectError, Crew
from rlft.data.episode import DemoMeta, Episode
from rlft.data.journal import Journal, Record
from rlft.data.writer import DemoWriter, check_repo_id, check_root
from rlft.seeding import seed_for
from rlft.types import DemoAttempt, DemoRecording, DemoSource, EnvSettings, RewardSettings

log = logging.getLogger(__name__)

PARTS = "collect_parts"
ATTEMPTS_PER_EPISODE = 4
WRITE_REPORT = 100  # episodes written between two reports
# What may differ between an interrupted collection and its continuation.
LEFT_OUT_OF_KEY = ("step_timeout_s", "max_restarts", "instruction", "assets_root")


class ProgressLike(Protocol):
    """Where progress is shown (:class:`rlft.progress.Progress`)."""

    def update(self, done: float, total: float, **figures: float) -> None:
        """Say how far the stage is."""
        ...


@dataclass(frozen=True)
class CollectResult:
    """What a collection came to.

    Attributes:
        episodes: demonstrations in the dataset.
        attempts: seeds tried for them.
        success_rate: successes per attempt.
        seconds: wall time of this call, an earlier interrupted one not included.
        resumed_attempts: attempts taken over from an interrupted collection.
        failures: kind of failure -> the seeds that failed so.
        lengths: mean, min and max steps per episode in the dataset.
        steps_to_success: mean, min and max steps until the first success.
        longer_than_limit: demonstrations that need more steps than ``env.max_episode_len`` allows a policy.
        dataset: its directory.
        fingerprint: of the dataset.
    """

    episodes: int
    attempts: int
    success_rate: float
    seconds: float
    resumed_attempts: int
    failures: dict[str, list[int]]
    lengths: dict[str, float]
    steps_to_success: dict[str, float]
    longer_than_limit: int
    dataset: str
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``collect.json``."""
        return {
            **dataclasses.asdict(self),
            "failure_counts": {kind: len(seeds) for kind, seeds in self.failures.items()},
        }


def collect(
    cfg: RunConfig, settings: EnvSettings, run_dir: Path, dataset_dir: Path, progress: ProgressLike | None = None
) -> CollectResult:
    """Collect ``cfg.collect.num_episodes`` demonstrations.

    Finished attempts are kept in ``<run_dir>/collect_parts`` until the dataset is whole; calling again after an
    interruption continues there.

    Args:
        cfg: all settings.
        settings: what the simulator is told.
        run_dir: the run's directory.
        dataset_dir: where the dataset goes; must not exist.
        progress: where progress is shown.

    Raises:
        DatasetError: the dataset exists, a name is not allowed, or parts of another configuration lie there.
        CollectError: the task has no planner, or too few attempts succeeded.
    """
    started = time.perf_counter()
    check_repo_id(cfg.dataset.repo_id)
    check_root(dataset_dir)
    settings = dataclasses.replace(
        settings,
        num_envs=1,
        num_workers=0,
        privileged=False,
        max_episode_steps=cfg.collect.max_steps,
        reward=RewardSettings(mode="sparse"),
        reward_per_chunk=False,
    )
    parts = run_dir / PARTS
    journal = Journal.open(parts, _key(cfg, settings))
    resumed = len(journal.records)
    if resumed:
        log.info("continuing an interrupted collection: %d attempts are done", resumed)
    source = _attempt_all(cfg, settings, journal, progress)
    records = _needed(journal, cfg.collect.num_episodes)
    kept = [r for r in records if r.outcome == "success" or (cfg.collect.keep_failures and r.steps > 0)]
    meta = _write(cfg, settings, dataset_dir, _episodes(journal, kept, progress), source)
    shutil.rmtree(parts)
    limit = cfg.env.max_episode_len
    result = _result(records, kept, limit, dataset_dir, meta, time.perf_counter() - started, resumed)
    if result.longer_than_limit:
        log.warning(
            "%d of %d demonstrations need more steps than env.max_episode_len=%d (the longest %d): a policy that "
            "moves like the planner cannot solve them in time",
            result.longer_than_limit,
            result.episodes,
            limit,
            result.steps_to_success["max"],
        )
    return result


def _key(cfg: RunConfig, settings: EnvSettings) -> dict[str, Any]:
    """Everything that decides what an attempt records."""
    return {
        "seed": cfg.seed,
        "success_hold_steps": cfg.collect.success_hold_steps,
        "action_noise": cfg.collect.action_noise,
        **{name: value for name, value in dataclasses.asdict(settings).items() if name not in LEFT_OUT_OF_KEY},
    }


def _attempt_all(cfg: RunConfig, settings: EnvSettings, journal: Journal, progress: ProgressLike | None) -> DemoSource:
    """Make attempts until enough have succeeded."""
    c = cfg.collect
    wanted, most = c.num_episodes, c.max_attempts or ATTEMPTS_PER_EPISODE * c.num_episodes
    outcomes = Counter(record.outcome for record in journal.records.values())
    following = max(journal.records, default=-1) + 1
    gaps = [number for number in range(following) if number not in journal.records]  # cut off by an interruption
    fresh = iter(range(following, most))
    how = {"hold_steps": c.success_hold_steps, "action_noise": c.action_noise, "max_steps": c.max_steps}

    def next_attempt(under_way: int) -> DemoAttempt | None:
        # No more than can still be needed: so the attempts made are the same, whatever the number of processes.
        enough = outcomes["success"] + under_way >= wanted
        number = gaps.pop(0) if gaps else None if enough else next(fresh, None)
        if number is None:
            return None
        return DemoAttempt(number, seed_for(cfg.seed, "collect", number), seed_for(cfg.seed, "collect-noise", number))

    def on_recording(recording: DemoRecording) -> None:
        outcomes[recording.outcome] += 1
        _keep(recording, journal, crew.source, c)
        if progress is not None:
            rate = outcomes["success"] / outcomes.total()
            progress.update(outcomes["success"], wanted, attempts=outcomes.total(), plan_success=rate)

    with Crew(settings, how, min(c.num_procs or len(os.sched_getaffinity(0)), wanted)) as crew:
        crew.run(next_attempt, on_recording)
        source = crew.source
    assert source is not None
    if outcomes["success"] < wanted:
        failed = ", ".join(f"{kind}: {count}" for kind, count in outcomes.items() if kind != "success")
        raise CollectError(
            f"only {outcomes['success']} of collect.num_episodes={wanted} demonstrations after {outcomes.total()} "
            f"attempts ({failed}); the reasons stand in {journal.path}. Raise collect.max_attempts to go on "
            "from here, or lower collect.num_episodes"
        )
    return source


def _keep(recording: DemoRecording, journal: Journal, source: DemoSource | None, c: CollectConfig) -> None:
    """Note an outcome, and its episode where it may end up in the dataset."""
    success = recording.outcome == "success"
    attempt = recording.attempt
    if not success:
        log.warning("attempt %d, seed %d: %s: %s", attempt.number, attempt.seed, recording.outcome, recording.message)
    episode = None
    if recording.actions and (success or c.keep_failures):
        assert source is not None
        steps = len(recording.actions)
        episode = Episode(
            images={name: np.stack(frames[:steps]) for name, frames in recording.images.items()},
            state=np.stack(recording.states[:steps]),
            action=np.stack(recording.actions),
            task=recording.instruction,
            seed=attempt.seed,
            success=success,
        )
    journal.add(
        Record(
            number=attempt.number,
            seed=attempt.seed,
            outcome=recording.outcome,
            steps=len(recording.actions),
            solved_at=recording.solved_at,
            seconds=recording.seconds,
            message=recording.message,
        ),
        episode,
    )


def _episodes(journal: Journal, kept: list[Record], progress: ProgressLike | None) -> Iterator[Episode]:
    """The kept episodes in order, read one at a time."""
    for done, record in enumerate(kept, start=1):
        yield journal.episode(record)
        if progress is not None and (done % WRITE_REPORT == 0 or done == len(kept)):
            progress.update(len(kept), len(kept), written=done)


def _write(
    cfg: RunConfig, settings: EnvSettings, dataset_dir: Path, episodes: Iterable[Episode], source: DemoSource
) -> DemoMeta:
    meta = DemoMeta(
        env_id=settings.env_id,
        control_mode=settings.control_mode,
        cameras=tuple(camera.name for camera in settings.cameras),
        state_terms=tuple(settings.state_terms),
        fps=cfg.collect.fps or round(source.spec.control_hz),
        planner=source.planner,
        run_seed=cfg.seed,
        constant_action=source.still_dims,
        versions=source.versions,
    )
    with DemoWriter(dataset_dir, cfg.dataset.repo_id, meta, video=cfg.collect.save_video) as writer:
        for episode in episodes:
            writer.add(episode)
        return writer.finish()


def _needed(journal: Journal, wanted: int) -> list[Record]:
    """The outcomes up to the last success that is wanted, in order; an earlier call may have wanted more."""
    out: list[Record] = []
    for number in sorted(journal.records):
        if sum(record.outcome == "success" for record in out) == wanted:
            break
        out.append(journal.records[number])
    return out


def _summary(values: list[int]) -> dict[str, float]:
    return {"mean": sum(values) / len(values), "min": min(values), "max": max(values)}


def _result(
    records: list[Record],
    kept: list[Record],
    limit: int,
    dataset_dir: Path,
    meta: DemoMeta,
    seconds: float,
    resumed: int,
) -> CollectResult:
    failures: dict[str, list[int]] = {}
    for record in records:
        if record.outcome != "success":
            failures.setdefault(record.outcome, []).append(record.seed)
    solved = [record.solved_at for record in records if record.outcome == "success" and record.solved_at is not None]
    return CollectResult(
        episodes=len(kept),
        attempts=len(records),
        success_rate=len(solved) / len(records),
        seconds=seconds,
        resumed_attempts=resumed,
        failures=failures,
        lengths=_summary([record.steps for record in kept]),
        steps_to_success=_summary(solved),
        longer_than_limit=sum(steps > limit for steps in solved),
        dataset=str(dataset_dir),
        fingerprint=meta.fingerprint,
    )
