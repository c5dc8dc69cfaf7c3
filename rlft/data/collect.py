"""Collects demonstrations in worker processes and writes them as one dataset.

Attempts are numbered; attempt i always has the same seed, and the dataset holds the first successes in the order
of their numbers. So it does not depend on how many processes work, nor on where a collection was interrupted.
"""

import dataclasses
import itertools
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlft.config.schema import RunConfig
from rlft.data.episode import DatasetError, DemoMeta, Episode, check_target, write_demos
from rlft.errors import RlftError
from rlft.progress import Progress
from rlft.seeding import seed_for
from rlft.types import AttemptRecord, DemoAttempt, DemoSource, EnvSettings, RewardSettings
from rlft_envs.errors import EnvSetupError, WorkerError
from rlft_envs.record import SUCCESS, RecordSettings
from rlft_envs.workers.demos import DemoPool

log = logging.getLogger(__name__)

PARTS, ATTEMPTS = "collect_parts", "attempts.jsonl"
ATTEMPTS_PER_EPISODE = 4
WRITE_REPORT = 100  # episodes written between two reports
# What may differ between an interrupted collection and its continuation.
LEFT_OUT_OF_KEY = ("step_timeout_s", "max_restarts", "instruction", "assets_root")


class CollectError(RlftError):
    """Demonstrations cannot be collected."""


class AttemptLog:
    """A directory with one line per finished attempt and one file per recorded episode.

    An attempt counts once its line is whole, and its line is written after its episode: whatever the moment of
    an interruption, nothing counts that is not there. ``root`` is made where it is missing, and what lies there is
    continued; ``key`` is everything that decides what an attempt records.

    Raises:
        DatasetError: the attempts that lie there were made with other settings.
    """

    def __init__(self, root: Path, key: dict[str, Any]) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.path = root, root / ATTEMPTS
        wanted = json.loads(json.dumps(key))
        found, *done = self._whole_lines() or [wanted]
        if not done:
            self.path.write_text(json.dumps(found) + "\n")
        if differ := [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]:
            told = "{} was {!r} in the interrupted collection and is {!r} now".format
            problems = [told(name, found.get(name), wanted.get(name)) for name in differ]
            problems.append(f"repeat the earlier settings to continue, or remove {root} to start anew")
            raise DatasetError(root, problems)
        self.records = {line["number"]: AttemptRecord(**line) for line in done}  # by attempt number

    def part(self, number: int) -> Path:
        """Where the episode of an attempt is kept; whoever records it writes it there."""
        return self.root / f"attempt_{number:06d}.npz"

    def add(self, record: AttemptRecord) -> None:
        """Note the outcome of an attempt, after its episode has been written."""
        with self.path.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(record)) + "\n")
        self.records[record.number] = record

    def episode(self, record: AttemptRecord) -> Episode:
        """The recorded episode of an attempt; a file that is gone or broken is a DatasetError."""
        path = self.part(record.number)
        try:
            return Episode.load(path, record.seed)
        except (OSError, ValueError, KeyError) as error:
            problem = f"{path.name} cannot be read ({error}); remove {self.root} to collect anew"
            raise DatasetError(self.root, [problem]) from error

    def _whole_lines(self) -> list[dict[str, Any]]:
        """What the file holds; a last line that an interruption cut off is removed from it."""
        data = self.path.read_bytes() if self.path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            log.warning("%s ends in a line that was cut off; that attempt is made again", self.path)
            os.truncate(self.path, len(whole))
        return list(map(json.loads, whole.splitlines()))


def collect(
    cfg: RunConfig, settings: EnvSettings, run_dir: Path, dataset_dir: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Collect ``cfg.collect.num_episodes`` demonstrations into ``dataset_dir``, which must not exist.

    Gives what collect.json holds. Finished attempts are kept in ``<run_dir>/collect_parts`` until the dataset is whole;
    calling again after an interruption continues there.

    Raises:
        DatasetError: the dataset exists, a name is not allowed, or parts of another configuration lie there.
        CollectError: the task has no planner, or too few attempts succeeded.
    """
    started, c = time.perf_counter(), cfg.collect
    check_target(dataset_dir, cfg.dataset.repo_id)
    settings = dataclasses.replace(
        settings, num_envs=1, num_workers=0, privileged=False, max_episode_steps=c.max_steps,
        reward=RewardSettings(mode="sparse"), reward_per_chunk=False,
    )  # fmt: skip
    record = RecordSettings(c.success_hold_steps, c.action_noise, c.max_steps, c.keep_failures)
    told = {"seed": cfg.seed, **dataclasses.asdict(settings), **dataclasses.asdict(record)}
    attempts = AttemptLog(run_dir / PARTS, {name: told[name] for name in told if name not in LEFT_OUT_OF_KEY})
    resumed = len(attempts.records)
    if resumed:
        log.info("continuing an interrupted collection: %d attempts are done", resumed)
    try:
        source = _attempt_all(cfg, settings, record, attempts, progress)
    except (EnvSetupError, WorkerError) as error:
        raise CollectError(str(error)) from error
    records = _needed(attempts, c.num_episodes)
    kept = [r for r in records if r.outcome == SUCCESS or (c.keep_failures and r.steps > 0)]
    meta, episodes = _meta(cfg, settings, source), _episodes(attempts, kept, progress)
    fingerprint = write_demos(dataset_dir, cfg.dataset.repo_id, meta, episodes, video=c.save_video).fingerprint
    shutil.rmtree(attempts.root)
    solved = [r.success_step for r in records if r.outcome == SUCCESS and r.success_step is not None]
    failures: dict[str, list[int]] = {}  # kind of failure -> the seeds that failed so
    for r in (r for r in records if r.outcome != SUCCESS):
        failures.setdefault(r.outcome, []).append(r.seed)
    limit = cfg.env.max_episode_len
    longer = sum(steps > limit for steps in solved)
    if longer:
        log.warning(
            "%d of %d demonstrations need more steps than env.max_episode_len=%d (the longest %d): a policy that "
            "moves like the planner cannot solve them in time", longer, len(kept), limit, max(solved),
        )  # fmt: skip
    return {
        "episodes": len(kept),  # demonstrations in the dataset
        "attempts": len(records),  # seeds tried for them
        "success_rate": len(solved) / len(records),
        "seconds": time.perf_counter() - started,  # of this call, without an earlier interrupted one
        "resumed_attempts": resumed,  # taken over from an interrupted collection
        "failures": failures,
        "failure_counts": {kind: len(seeds) for kind, seeds in failures.items()},
        "lengths": _summary([r.steps for r in kept]),
        "steps_to_success": _summary(solved),
        "longer_than_limit": longer,  # demonstrations that need more steps than a policy has
        "dataset": str(dataset_dir),
        "fingerprint": fingerprint,
    }


def _attempt_all(
    cfg: RunConfig, settings: EnvSettings, record: RecordSettings, attempts: AttemptLog, progress: Progress | None
) -> DemoSource:
    """Make attempts until enough have succeeded."""
    c = cfg.collect
    wanted, most = c.num_episodes, c.max_attempts or ATTEMPTS_PER_EPISODE * c.num_episodes
    outcomes = Counter(done.outcome for done in attempts.records.values())
    following = max(attempts.records, default=-1) + 1
    gaps = [number for number in range(following) if number not in attempts.records]  # cut off by an interruption
    fresh = iter(range(following, most))

    def next_attempt(under_way: int) -> DemoAttempt | None:
        # No more than can still be needed: so the attempts made are the same, whatever the number of processes.
        enough = outcomes[SUCCESS] + under_way >= wanted
        number = gaps.pop(0) if gaps else None if enough else next(fresh, None)
        if number is None:
            return None
        return DemoAttempt(number, seed_for(cfg.seed, "collect", number), seed_for(cfg.seed, "collect-noise", number))

    size = min(c.num_procs or len(os.sched_getaffinity(0)), wanted)
    with DemoPool(settings, record, size, attempts.part) as pool:
        source = pool.source()
        for done in pool.run(next_attempt):
            attempts.add(done)
            outcomes[done.outcome] += 1
            if done.outcome != SUCCESS:
                log.warning("attempt %d, seed %d: %s: %s", done.number, done.seed, done.outcome, done.message)
            if progress is not None:
                rate = outcomes[SUCCESS] / outcomes.total()
                progress.update(outcomes[SUCCESS], wanted, attempts=outcomes.total(), plan_success=rate)
    if outcomes[SUCCESS] < wanted:
        failed = ", ".join(f"{kind}: {count}" for kind, count in outcomes.items() if kind != SUCCESS)
        raise CollectError(
            f"only {outcomes[SUCCESS]} of collect.num_episodes={wanted} demonstrations after {outcomes.total()} "
            f"attempts ({failed}); the reasons stand in {attempts.path}. Raise collect.max_attempts to go on "
            "from here, or lower collect.num_episodes"
        )
    return source


def _meta(cfg: RunConfig, settings: EnvSettings, source: DemoSource) -> DemoMeta:
    return DemoMeta(
        env_id=settings.env_id,
        control_mode=settings.control_mode,
        cameras=tuple(camera.name for camera in settings.cameras),
        state_terms=tuple(settings.state_terms),
        fps=cfg.collect.fps or round(source.spec.control_hz),
        planner=source.planner,
        run_seed=cfg.seed,
        frozen_action_dims=source.frozen_action_dims,
        versions=source.versions,
    )


def _episodes(attempts: AttemptLog, kept: list[AttemptRecord], progress: Progress | None) -> Iterator[Episode]:
    """The kept episodes in order, read one at a time; each is written when the next one is asked for."""
    for done, record in enumerate(kept, start=1):
        yield attempts.episode(record)
        if progress is not None and (done % WRITE_REPORT == 0 or done == len(kept)):
            progress.update(len(kept), len(kept), written=done)


def _needed(attempts: AttemptLog, wanted: int) -> list[AttemptRecord]:
    """The outcomes up to the last success that is wanted, in order; an earlier call may have wanted more."""
    ordered = [attempts.records[number] for number in sorted(attempts.records)]
    successes = itertools.accumulate(record.outcome == SUCCESS for record in ordered)
    return [record for record, count in zip(ordered, successes) if count - (record.outcome == SUCCESS) < wanted]


def _summary(values: list[int]) -> dict[str, float]:
    return {"mean": sum(values) / len(values), "min": min(values), "max": max(values)}
