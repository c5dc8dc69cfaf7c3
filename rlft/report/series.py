"""Curves out of metrics.jsonl and the evaluation files, as arrays that can be drawn. Gaps are NaN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rlft.report.rundir import RunFiles, as_float
from rlft.statistics import wilson_interval

NOTHING = (np.nan, np.nan)


@dataclass(frozen=True)
class Curve:
    """A scalar over steps; all arrays float64 ``[n]``, NaN where nothing was logged."""

    steps: np.ndarray  # ascending
    values: np.ndarray  # the scalar
    low: np.ndarray  # lower end of its 95 % interval, or NaN
    high: np.ndarray  # upper end

    @classmethod
    def of(cls, points: Mapping[int, tuple[float, tuple[float, float]]]) -> Curve:
        """From step -> (value, ends of its interval)."""
        rows = [(step, value, *ends) for step, (value, ends) in sorted(points.items())]
        steps, *columns = np.array(rows, dtype=float).reshape(-1, 4).T
        return cls(steps, *(np.where(np.isfinite(column), column, np.nan) for column in columns))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not np.isfinite(self.values).any()


def logged(run: RunFiles, stage: str, key: str) -> Curve:
    """One scalar of one stage. A step that was logged twice (a resumed run) counts as it was logged last."""
    lines = [line for line in run.metrics if line["stage"] == stage]
    return Curve.of({int(line["step"]): (as_float(line.get(key)), NOTHING) for line in lines})


def rollout_success(run: RunFiles) -> Curve:
    """Success of the episodes that ended within each PPO iteration, with Wilson's interval over that many."""
    points = {}
    for line in run.metrics:
        if line["stage"] == "rl":
            rate, n = (as_float(line.get(f"rollout/{key}")) for key in ("success", "episodes"))
            counted = np.isfinite(rate) and n >= 1
            points[int(line["step"])] = rate, wilson_interval(round(rate * n), int(n)) if counted else NOTHING
    return Curve.of(points)


def evaluated_success(run: RunFiles) -> Curve:
    """Success on the evaluation seeds by iteration: SFT's at 0, evaluations on the way, the final one."""
    points = {}
    for line in run.metrics:
        if line["stage"] == "eval":
            rate, low, high = (as_float(line.get(key)) for key in ("success", "ci_low", "ci_high"))
            points[int(line["step"])] = rate, (low, high)
    known = run.numbered | ({0: run.before} if run.before else {})
    known |= {int(run.rl["iterations"]): run.after} if run.after and run.rl and "iterations" in run.rl else {}
    return Curve.of(points | {step: (evaluation.success, evaluation.ci95) for step, evaluation in known.items()})
