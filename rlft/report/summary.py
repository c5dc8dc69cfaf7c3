"""``summary.json``: a run in numbers, computed from its files and nothing else."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from rlft.report.evalfiles import Evaluation
from rlft.report.rundir import RunFiles, number
from rlft.report.statistics import PairedOutcome, pair_outcomes


def summarise(run: RunFiles) -> dict[str, Any]:
    """Gather the run's numbers.

    Returns:
        plain JSON data. A stage that was not run is None; ``missing`` names the absent files.
    """
    rl = run.rl or {}
    last = run.provenance[-1] if run.provenance else {}
    return {
        "name": run.directory.resolve().name,
        "env_id": _env_id(run),
        "seed": _setting(run, "seed"),
        "cameras": _cameras(run),
        "policy": {
            "parameters": (run.sft or rl).get("parameters"),
            "trained_parameters": rl.get("trained_parameters"),
        },
        "collect": _collect(run.collect),
        "sft": _stage(run.sft, ("steps", "final_loss"), run.before),
        "rl": _stage(run.rl, ("iterations", "env_steps"), run.after),
        "evaluations": {label: _result(evaluation) for label, evaluation in run.evaluations.items()},
        "comparison": comparison(run),
        "suites": {label: suite["groups"] for label, suite in run.suites.items()},
        "throughput": {key: rl.get(key) for key in ("env_steps_per_s", "samples_per_s_update")},
        "seconds": seconds(run),
        "versions": {"python": last.get("python"), **last.get("versions", {})} if last else None,
        "machine": _pick(last or None, "system", "cpu_cores", "memory_gib", "torch_threads"),
        "git_commit": last.get("git_commit"),
        "command": commands(run),
        "missing": list(run.missing),
    }


def comparison(run: RunFiles) -> dict[str, Any] | None:
    """Before against after on the same seeds; None where one of them is missing.

    Returns:
        the two labels; ``differences``: why the two cannot be compared (other protocols), empty where they can; and
        then the four counts, points gained, the exact p-value, and whether the two intervals are apart. Evaluations of
        different protocols are not compared: these are None.
    """
    before, after = run.before, run.after
    if before is None or after is None:
        return None
    labels = {"before": before.label, "after": after.label, "differences": differences(before, after)}
    if labels["differences"]:
        counts = ("both", "gained", "lost", "neither", "pairs", "gain_points", "p_value", "intervals_apart")
        return labels | dict.fromkeys(counts)
    paired = paired_outcomes(before, after)
    return {
        **labels,
        **vars(paired),
        "pairs": paired.pairs,
        "gain_points": paired.gain_points,
        "p_value": paired.p_value,
        "intervals_apart": after.ci95[0] > before.ci95[1] or before.ci95[0] > after.ci95[1],
    }


def paired_outcomes(before: Evaluation, after: Evaluation) -> PairedOutcome:
    """The four counts over the episodes, by their index in the protocol; two of them may share a seed."""
    return pair_outcomes(*(dict(enumerate(e.success for e in evaluation.episodes)) for evaluation in (before, after)))


def differences(before: Evaluation, after: Evaluation) -> list[str]:
    """What keeps two evaluations from being comparable, one line each; empty where their protocols are the same."""
    if before.protocol_hash == after.protocol_hash:
        return []
    first, second = before.protocol, after.protocol
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    return [f"{key}: {_short(first.get(key))} before, {_short(second.get(key))} after" for key in keys]


def _short(value: Any, limit: int = 60) -> str:
    return text if len(text := str(value)) <= limit else text[:limit] + "…"


def seconds(run: RunFiles) -> dict[str, float]:
    """Wall time of every stage that reported one, and their total, seconds.

    The evaluations that PPO ran itself lie inside the RL stage, and are not counted twice.
    """
    parts: dict[str, Mapping[str, Any] | None] = {"collect": run.collect, "sft": run.sft, "rl": run.rl}
    parts |= {f"eval_{label}": e.raw for label, e in run.evaluations.items() if label not in run.within_ppo}
    given = {name: number(part.get("seconds")) for name, part in parts.items() if part}
    known = {name: value for name, value in given.items() if math.isfinite(value)}
    return known | {"total": sum(known.values())}


def commands(run: RunFiles) -> list[str]:
    """The commands that made this directory, in order, ready for a shell; repeated ones once."""
    return list(dict.fromkeys(shlex.join(map(str, line["command"])) for line in run.provenance))


def _env_id(run: RunFiles) -> str | None:
    named = [e.protocol.get("env_id") for e in (run.after, run.before) if e is not None]
    return named[0] if named else _setting(run, "env", "id")


def _cameras(run: RunFiles) -> list[dict[str, Any]]:
    cameras = _setting(run, "env", "cameras") or []
    return [{key: camera.get(key) for key in ("name", "height", "width")} for camera in cameras]


def _setting(run: RunFiles, *path: str) -> Any:
    """A value of config.yaml as it was written then; None where that file, or the key, is missing."""
    value: Any = run.config
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def _collect(collect: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Failures as counts by class; collect.json itself lists the seeds of each."""
    picked = _pick(collect, "episodes", "attempts", "success_rate", "seconds", "lengths", "longer_than_limit")
    if collect is None or picked is None:
        return None
    return picked | {"failures": {kind: len(seeds) for kind, seeds in collect.get("failures", {}).items()}}


def _pick(source: Mapping[str, Any] | None, *keys: str) -> dict[str, Any] | None:
    return None if source is None else {key: source.get(key) for key in keys}


def _stage(source: Mapping[str, Any] | None, keys: tuple[str, ...], result: Evaluation | None) -> dict[str, Any] | None:
    if source is None and result is None:
        return None
    scores = _result(result) if result else dict.fromkeys(("success", "episodes", "ci95"))
    return {key: (source or {}).get(key) for key in keys} | scores


def _result(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "success": evaluation.success,
        "episodes": len(evaluation.episodes),
        "successes": evaluation.successes,
        "ci95": list(evaluation.ci95),
        "mean_steps": sum(e.steps for e in evaluation.episodes) / len(evaluation.episodes),
        "max_episode_len": evaluation.max_episode_len,
        "success_at_end": evaluation.raw.get("success_at_end"),
        "macro": evaluation.raw.get("macro"),
        "protocol_hash": evaluation.protocol_hash,
    }
