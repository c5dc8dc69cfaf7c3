"""Reading a run directory: every file that a report is made of, checked once; errors name file and remedy."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlft.errors import RlftError
from rlft.evaluate.result import EvalResult, compare
from rlft.evaluate.suite import SuiteTable
from rlft.files import read_stage

VIDEO_NAME = re.compile(r"(?P<label>.+)_(?P<index>\d+)_(?P<outcome>success|failure)\.mp4")
SUITE = "eval_suite_"
ITERATION_LABEL = re.compile(r"rl_(\d+)")


@dataclass(frozen=True, order=True)
class Video:
    """One recorded evaluation episode; ``index`` is the episode's index within its evaluation."""

    label: str
    index: int
    success: bool
    path: Path


@dataclass(frozen=True)
class VideoPair:
    """One evaluation episode, recorded before and after PPO."""

    seed: int
    before: Video
    after: Video

    @property
    def gained(self) -> bool:
        """Failure before, success after."""
        return self.after.success and not self.before.success


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds. A stage that was not run is None or absent."""

    directory: Path
    config_text: str | None  # config.yaml as it stands, or None
    config: Mapping[str, Any]  # the same, parsed; empty where it is missing
    metrics: tuple[Mapping[str, Any], ...]  # the lines of metrics.jsonl, in order
    collect: Mapping[str, Any] | None  # collect.json
    sft: Mapping[str, Any] | None  # sft.json
    rl: Mapping[str, Any] | None  # rl.json
    evaluations: Mapping[str, EvalResult]  # label -> evaluation
    suites: Mapping[str, SuiteTable]  # label -> eval_suite_<label>.json
    videos: tuple[Video, ...]  # by label and index
    provenance: tuple[Mapping[str, Any], ...]  # lines of provenance.jsonl: the commands that made this directory

    @property
    def before(self) -> EvalResult | None:
        """The evaluation after SFT: ``sft``, or the one before the first PPO iteration."""
        return self.evaluations.get("sft") or self.evaluations.get("rl_00000")

    @property
    def after(self) -> EvalResult | None:
        """PPO's evaluation: ``rl``, or that of the latest iteration."""
        on_the_way = [result for iteration, result in sorted(self.numbered.items()) if iteration > 0]
        return self.evaluations.get("rl") or next(reversed(on_the_way), None)

    @property
    def numbered(self) -> dict[int, EvalResult]:
        """PPO iteration -> its evaluation."""
        matches = ((ITERATION_LABEL.fullmatch(label), result) for label, result in self.evaluations.items())
        return {int(match[1]): result for match, result in matches if match}

    @property
    def comparison(self) -> dict[str, Any] | None:
        """Before against after, see :func:`rlft.evaluate.result.compare`; None where one of them is missing."""
        return compare(self.before, self.after) if self.before and self.after else None

    @property
    def pairs(self) -> list[VideoPair]:
        """The episodes that were recorded before and after under the same protocol, by index."""
        first, last = self.before, self.after
        if first is None or last is None or first.protocol_hash != last.protocol_hash:
            return []
        early, late = ({v.index: v for v in self.videos if v.label == e.label} for e in (first, last))
        shown = [e for e in first.per_episode if e.index in early and e.index in late]
        return [VideoPair(e.seed, early[e.index], late[e.index]) for e in shown]

    @property
    def within_ppo(self) -> set[str]:
        """Labels of the evaluations that PPO ran itself: their time is part of the RL stage.

        PPO logs an ``eval`` line for each; evaluations by a command of their own log none.
        """
        steps = {int(line["step"]) for line in self.metrics if line["stage"] == "eval"}
        ends = ((0, "sft"), ((self.rl or {}).get("iterations"), "rl"))
        return {e.label for e in self.numbered.values()} | {label for step, label in ends if step in steps}

    @property
    def missing(self) -> list[str]:
        """Names of the files that a whole run has, and this directory has not."""
        files: list[tuple[str, object]] = [
            ("config.yaml", self.config_text), ("metrics.jsonl", self.metrics), ("collect.json", self.collect),
            ("sft.json", self.sft), ("eval_sft.json", self.before), ("rl.json", self.rl), ("eval_rl.json", self.after),
            ("provenance.jsonl", self.provenance), ("videos/", self.videos),
        ]  # fmt: skip
        return [name for name, content in files if content is None or content == ()]


def read_run(directory: Path) -> RunFiles:
    """Read everything that a report needs from ``outputs/<name>``.

    Raises:
        NotADirectoryError: there is no such directory.
        RlftError: a file is damaged; names the file, the line or field, and the remedy.
    """
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory}: no run directory; give one that a stage has written (outputs/<name>)")
    config_text, config = _read_config(directory / "config.yaml")
    suites = {path.stem.removeprefix(SUITE): path for path in sorted(directory.glob(f"{SUITE}*.json"))}
    files = sorted(set(directory.glob("eval_*.json")) - set(suites.values()))
    evaluations = sorted(map(EvalResult.load, files), key=_by_time_of_training)
    return RunFiles(
        directory=directory,
        config_text=config_text,
        config=config,
        metrics=_read_lines(directory / "metrics.jsonl", required=("time", "stage", "step")),
        collect=_read_stage(directory, "collect"),
        sft=_read_stage(directory, "sft"),
        rl=_read_stage(directory, "rl"),
        evaluations={evaluation.label: evaluation for evaluation in evaluations},
        suites={label: SuiteTable.load(path) for label, path in suites.items()},
        videos=list_videos(directory / "videos"),
        provenance=_read_lines(directory / "provenance.jsonl", required=("command",)),
    )


def as_float(value: Any) -> float:
    """A logged scalar as a float. The tracker writes what is not finite as text; null and absent ones are NaN."""
    if isinstance(value, str):
        return {"inf": math.inf, "-inf": -math.inf}.get(value, math.nan)
    return float(value) if isinstance(value, int | float) else math.nan


def _read_config(path: Path) -> tuple[str | None, Mapping[str, Any]]:
    if not path.is_file():
        return None, {}
    text = path.read_text(encoding="utf-8")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RlftError(f"{path}: not YAML ({error}); restore it from the checkpoint's copy") from error
    if not isinstance(config, Mapping):
        raise RlftError(f"{path}: holds a {type(config).__name__}, not settings; restore it or run the stage again")
    return text, config


def _read_stage(directory: Path, name: str) -> Mapping[str, Any] | None:
    if not (directory / f"{name}.json").is_file():
        return None
    result = read_stage(directory, name)
    failures = result.get("failures", {})
    if not (isinstance(failures, dict) and all(isinstance(seeds, list) for seeds in failures.values())):
        raise RlftError(f"{directory / name}.json: failures={failures!r} is no object of seed lists; run it again")
    return result


def _read_lines(path: Path, required: tuple[str, ...]) -> tuple[Mapping[str, Any], ...]:
    if not path.is_file():
        return ()
    records, remedy = [], "delete the line, or run the stage again"
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = dict(json.loads(line))
        except (ValueError, TypeError) as error:
            raise RlftError(f"{path}:{number}: no JSON object ({error}); {remedy}") from error
        if lacking := ", ".join(key for key in required if key not in record):
            raise RlftError(f"{path}:{number}: lacks {lacking}; {remedy}")
        records.append(record)
    return tuple(records)


def _by_time_of_training(evaluation: EvalResult) -> tuple[int, str]:
    """Other policies first, then SFT's, then PPO's iterations, and its final policy last."""
    label = evaluation.label
    return {"sft": 1, "rl": 3}.get(label, 2 if ITERATION_LABEL.fullmatch(label) else 0), label


def list_videos(directory: Path) -> tuple[Video, ...]:
    """The videos of evaluations in a directory, by label and index."""
    found = ((path, VIDEO_NAME.fullmatch(path.name)) for path in directory.glob("*.mp4"))
    return tuple(sorted(Video(m["label"], int(m["index"]), m["outcome"] == "success", path) for path, m in found if m))
