"""``summary.json``: a run in numbers, computed from its files and nothing else."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from rlft.evaluate.result import EvalResult
from rlft.report.rundir import RunFiles, as_float

COLLECT = ("episodes", "attempts", "success_rate", "seconds", "lengths", "longer_than_limit")
RESULT = ("success", "episodes", "successes", "ci95", "mean_steps", "max_episode_len", "success_at_end", "macro",
          "protocol_hash")  # fmt: skip


def summarise(run: RunFiles) -> dict[str, Any]:
    """Gather the run's numbers: plain JSON data. A stage that was not run is None; ``missing`` names absent files."""
    rl = run.rl or {}
    latest = run.after or run.before
    last = run.provenance[-1] if run.provenance else {}
    return {
        "name": run.directory.resolve().name,
        "env_id": latest.protocol["env_id"] if latest else _setting(run, "env", "id"),
        "seed": _setting(run, "seed"),
        "cameras": [_pick(camera, "name", "height", "width") for camera in _setting(run, "env", "cameras") or []],
        "policy": _pick(run.sft or rl, "parameters") | _pick(rl, "trained_parameters"),
        "collect": _collect(run.collect),
        "sft": _stage(run.sft, ("steps", "final_loss"), run.before),
        "rl": _stage(run.rl, ("iterations", "env_steps"), run.after),
        "evaluations": {label: _result(evaluation) for label, evaluation in run.evaluations.items()},
        "comparison": run.comparison,
        "suites": {label: suite.groups for label, suite in run.suites.items()},
        "throughput": _pick(rl, "env_steps_per_s", "samples_per_s_update"),
        "seconds": seconds(run),
        "versions": {"python": last.get("python"), **last.get("versions", {})} if last else None,
        "machine": _pick(last, "system", "cpu_cores", "memory_gib", "torch_threads") if last else None,
        "git_commit": last.get("git_commit"),
        # Ready for a shell; repeated ones once.
        "command": list(dict.fromkeys(shlex.join(map(str, line["command"])) for line in run.provenance)),
        "missing": run.missing,
    }


def seconds(run: RunFiles) -> dict[str, float]:
    """Wall time of every stage that reported one, and their total, seconds.

    The evaluations that PPO ran itself lie inside the RL stage, and are not counted twice.
    """
    stages = {"collect": run.collect, "sft": run.sft, "rl": run.rl}
    given = {name: as_float(stage.get("seconds")) for name, stage in stages.items() if stage}
    given |= {f"eval_{label}": e.seconds for label, e in run.evaluations.items() if label not in run.within_ppo}
    known = {name: value for name, value in given.items() if math.isfinite(value)}
    return known | {"total": sum(known.values())}


def _collect(collect: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Failures as counts by class; collect.json itself lists the seeds of each."""
    if collect is None:
        return None
    counts = {kind: len(seeds) for kind, seeds in collect.get("failures", {}).items()}
    return _pick(collect, *COLLECT) | {"failures": counts}


def _setting(run: RunFiles, *path: str) -> Any:
    """A value of config.yaml as it was written then; None where that file, or the key, is missing."""
    value: Any = run.config
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def _pick(source: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: source.get(key) for key in keys}


def _stage(source: Mapping[str, Any] | None, keys: tuple[str, ...], result: EvalResult | None) -> dict[str, Any] | None:
    if source is None and result is None:
        return None
    scores = _result(result) if result else dict.fromkeys(("success", "episodes", "ci95"))
    return _pick(source or {}, *keys) | scores


def _result(evaluation: EvalResult) -> dict[str, Any]:
    return {key: getattr(evaluation, key) for key in RESULT}
