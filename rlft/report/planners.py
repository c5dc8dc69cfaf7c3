"""The planners' section of docs/results.md, from what ``python -m benchmarks.planner_success`` kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEAD = """## Planners

`python -m benchmarks.planner_success`, fresh seeds, one attempt each, state only: the recorded actions are executed by
the task's controller, the object is let go, and success holds two further steps, within the task's time limit.
Brackets of the rate are 95 % Wilson intervals; those of the steps are the shortest and the longest demonstration.
"""


def section(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The section's lines; none where nothing was measured.

    Args:
        found: task -> what is kept of it.
    """
    if not found:
        return []
    titles = ("| task | solved | steps | failures | s per attempt |", "| --- | --- | --- | --- | --- |")
    lines = [*HEAD.splitlines(), "", *titles]
    return [*lines, *(_row(name, found[name]) for name in sorted(found)), ""]


def _row(name: str, one: Mapping[str, Any]) -> str:
    low, high = one["ci95"]
    rate = f"{100 * one['successes'] / one['seeds']:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {one['seeds']}"
    steps = one["lengths"]
    length = "-" if steps is None else f"{steps['mean']:.1f} [{steps['min']}, {steps['max']}]"
    failures = ", ".join(f"{kind} {len(seeds)}" for kind, seeds in one["failures"].items()) or "none"
    return f"| {name} | {rate} | {length} | {failures} | {one['seconds']['mean']:.1f} |"
