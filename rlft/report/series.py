"""Curves out of metrics.jsonl and the evaluation files, as arrays that can be drawn. Gaps are NaN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlft.report.rundir import ITERATION_LABEL, RunFiles, number
from rlft.statistics import wilson_interval


@dataclass(frozen=True)
class Curve:
    """A scalar over steps; all arrays float64 ``[n]``, NaN where nothing was logged.

    Attributes:
        steps: ascending.
        values: the scalar.
        low: lower end of its 95 % interval, or NaN.
        high: upper end.
    """

    steps: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not np.isfinite(self.values).any()


def logged(run: RunFiles, stage: str, key: str) -> Curve:
    """One scalar of one stage. A step that was logged twice (a resumed run) counts as it was logged last."""
    latest = {int(line["step"]): number(line.get(key)) for line in run.metrics if line["stage"] == stage}
    steps = sorted(latest)
    values = np.array([latest[step] for step in steps], dtype=float)
    values[~np.isfinite(values)] = np.nan
    nothing = np.full(len(steps), np.nan)
    return Curve(np.array(steps, dtype=float), values, nothing, nothing)


def rollout_success(run: RunFiles) -> Curve:
    """Success of the episodes that ended within each PPO iteration, with Wilson's interval over that many."""
    rate, episodes = logged(run, "rl", "rollout/success"), logged(run, "rl", "rollout/episodes")
    bounds = [
        wilson_interval(round(p * n), int(n)) if np.isfinite(p) and n >= 1 else (np.nan, np.nan)
        for p, n in zip(rate.values, episodes.values, strict=True)
    ]
    low, high = np.array(bounds, dtype=float).reshape(-1, 2).T
    return Curve(rate.steps, rate.values, low, high)


def evaluated_success(run: RunFiles) -> Curve:
    """Success on the evaluation seeds by iteration: the warm-up at 0, evaluations on the way, the final one."""
    points = {
        int(line["step"]): tuple(number(line.get(key)) for key in ("success", "ci_low", "ci_high"))
        for line in run.metrics
        if line["stage"] == "eval"
    }
    for label, evaluation in run.evaluations.items():
        if match := ITERATION_LABEL.fullmatch(label):
            points[int(match[1])] = (evaluation.success, *evaluation.ci95)
    if run.before is not None:
        points[0] = (run.before.success, *run.before.ci95)
    if run.after is not None and run.rl is not None and "iterations" in run.rl:
        points[int(run.rl["iterations"])] = (run.after.success, *run.after.ci95)
    steps = sorted(points)
    values, low, high = np.array([points[step] for step in steps], dtype=float).reshape(-1, 3).T
    return Curve(np.array(steps, dtype=float), values, low, high)
