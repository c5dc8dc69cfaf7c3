"""Reading a run directory: every file that a report is made of, checked once, errors naming file and line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlft.report.evalfiles import Evaluation, RunFileError, parse_object, read_evaluation, read_suite

VIDEO_NAME = re.compile(r"(?P<label>.+)_(?P<index>\d+)_(?P<outcome>success|failure)\.mp4")
SUITE = "eval_suite_"
ITERATION_LABEL = re.compile(r"rl_(\d+)")


@dataclass(frozen=True)
class Video:
    """One recorded evaluation episode; ``index`` is the episode's index within its evaluation."""

    path: Path
    label: str
    index: int
    success: bool


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds. A stage that was not run is None or absent.

    Attributes:
        directory: the run directory.
        config_text: config.yaml as it stands, or None.
        config: the same, parsed; empty where it is missing.
        metrics: the lines of metrics.jsonl, in order.
        collect: collect.json.
        sft: sft.json.
        rl: rl.json.
        evaluations: label -> evaluation.
        suites: label -> eval_suite_<label>.json.
        videos: by label and index.
        provenance: lines of provenance.jsonl: the commands that made this directory.
        missing: names of expected files that are not there.
    """

    directory: Path
    config_text: str | None
    config: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    collect: Mapping[str, Any] | None
    sft: Mapping[str, Any] | None
    rl: Mapping[str, Any] | None
    evaluations: Mapping[str, Evaluation]
    suites: Mapping[str, Mapping[str, Any]]
    videos: tuple[Video, ...]
    provenance: tuple[Mapping[str, Any], ...]
    missing: tuple[str, ...]

    @property
    def before(self) -> Evaluation | None:
        """The warm-up's evaluation: ``sft``, or the one before the first PPO iteration."""
        return self.evaluations.get("sft") or self.evaluations.get("rl_00000")

    @property
    def after(self) -> Evaluation | None:
        """PPO's evaluation: ``rl``, or that of the latest iteration."""
        numbered = {int(m[1]): e for label, e in self.evaluations.items() if (m := ITERATION_LABEL.fullmatch(label))}
        latest = numbered[max(numbered)] if numbered and max(numbered) > 0 else None
        return self.evaluations.get("rl") or latest

    @property
    def within_ppo(self) -> frozenset[str]:
        """Labels of the evaluations that PPO ran itself: their time is part of the RL stage.

        PPO logs an ``eval`` line for each; evaluations by a command of their own log none.
        """
        steps = {int(line["step"]) for line in self.metrics if line["stage"] == "eval"}
        numbered = {label for label in self.evaluations if ITERATION_LABEL.fullmatch(label)}
        last = self.rl["iterations"] if self.rl is not None and "iterations" in self.rl else None
        return frozenset(numbered | ({"sft"} if 0 in steps else set()) | ({"rl"} if last in steps else set()))


def read_run(directory: Path) -> RunFiles:
    """Read everything that a report needs.

    Args:
        directory: ``outputs/<name>``.

    Raises:
        NotADirectoryError: there is no such directory.
        RunFileError: a file is damaged; names the file, the line and the remedy.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory}: no run directory; give one that a stage has written (outputs/<name>)")
    config_text, config = _read_config(directory / "config.yaml")
    stages = {name: _read_stage(directory / f"{name}.json") for name in ("collect", "sft", "rl")}
    suites = {path.stem.removeprefix(SUITE): path for path in sorted(directory.glob(f"{SUITE}*.json"))}
    files = sorted(set(directory.glob("eval_*.json")) - set(suites.values()))
    evaluations = sorted(map(read_evaluation, files), key=_by_time_of_training)
    run = RunFiles(
        directory=directory,
        config_text=config_text,
        config=config,
        metrics=_read_lines(directory / "metrics.jsonl", required=("time", "stage", "step")),
        evaluations={evaluation.label: evaluation for evaluation in evaluations},
        suites={label: read_suite(path) for label, path in suites.items()},
        videos=_list_videos(directory / "videos"),
        provenance=_read_lines(directory / "provenance.jsonl", required=("command",)),
        missing=(),
        **stages,
    )
    return _with_missing(run)


def _with_missing(run: RunFiles) -> RunFiles:
    absent = {
        "config.yaml": run.config_text is None,
        "metrics.jsonl": not run.metrics,
        "collect.json": run.collect is None,
        "sft.json": run.sft is None,
        "eval_sft.json": run.before is None,
        "rl.json": run.rl is None,
        "eval_rl.json": run.after is None,
        "provenance.jsonl": not run.provenance,
        "videos/": not run.videos,
    }
    return RunFiles(**{**vars(run), "missing": tuple(name for name, gone in absent.items() if gone)})


def _read_config(path: Path) -> tuple[str | None, Mapping[str, Any]]:
    if not path.is_file():
        return None, {}
    text = path.read_text(encoding="utf-8")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise RunFileError(f"{path}:{line}: not YAML ({error}); restore it from the checkpoint's copy") from error
    if not isinstance(config, Mapping):
        raise RunFileError(
            f"{path}:1: holds a {type(config).__name__}, not settings; restore it or run the stage again"
        )
    return text, config


def _read_stage(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    result = parse_object(path, 1, path.read_text(encoding="utf-8"), "run the stage again")
    failures = result.get("failures", {})
    if not (isinstance(failures, dict) and all(isinstance(seeds, list) for seeds in failures.values())):
        raise RunFileError(f"{path}:1: failures={failures!r} is no object of seed lists; run the stage again")
    return result


def _read_lines(path: Path, required: tuple[str, ...]) -> tuple[Mapping[str, Any], ...]:
    if not path.is_file():
        return ()
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        record = parse_object(path, number, line, "delete the line, or run the stage again")
        lacking = [key for key in required if key not in record]
        if lacking:
            raise RunFileError(f"{path}:{number}: lacks {', '.join(lacking)}; delete the line, or run the stage again")
        records.append(record)
    return tuple(records)


def _by_time_of_training(evaluation: Evaluation) -> tuple[int, str]:
    """Other policies first, then the warm-up, then PPO's iterations, and its final policy last."""
    label = evaluation.label
    return {"sft": 1, "rl": 3}.get(label, 2 if ITERATION_LABEL.fullmatch(label) else 0), label


def _list_videos(directory: Path) -> tuple[Video, ...]:
    found = []
    for path in sorted(directory.glob("*.mp4")):
        if match := VIDEO_NAME.fullmatch(path.name):
            found.append(Video(path, match["label"], int(match["index"]), match["outcome"] == "success"))
    return tuple(sorted(found, key=lambda video: (video.label, video.index)))


def number(value: Any) -> float:
    """A logged scalar as a float. The tracker writes what is not finite as text; null and absent ones are NaN."""
    if isinstance(value, str):
        return {"inf": math.inf, "-inf": -math.inf}.get(value, math.nan)
    return float(value) if isinstance(value, int | float) else math.nan
