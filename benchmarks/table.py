"""The result file and the table that a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlft.report.speed import goal, number, verdict

HEAD = ("benchmark", "case", "measure", "value", "pairs' range", "goal", "", "ours", "theirs", "unit")


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row of the table."""
    spread = f"{number(row['low'])} .. {number(row['high'])}"
    sides = [number(row["ours"]), number(row["theirs"]), row["unit"]]
    return [
        row["benchmark"],
        row["case"],
        row["measure"],
        number(row["value"]),
        spread,
        goal(row),
        verdict(row),
        *sides,
    ]


def table(result: Mapping[str, Any]) -> str:
    """All rows, the benchmarks that failed, and the explanations of missed goals.

    Args:
        result: the content of ``bench.json``.
    """
    lines = aligned([HEAD, *(cells(row) for row in result["rows"])])
    for name, state in result["benchmarks"].items():
        if state["status"] != "ok":
            lines.append(f"{name}: {state['status'].upper()} after {state['seconds']:.0f} s\n{state['error']}")
    lines += [
        f"{row['benchmark']}, {row['case']}: {row['explanation']}" for row in result["rows"] if row["met"] is False
    ]
    met = [row["met"] for row in result["rows"] if row["met"] is not None]
    lines.append(f"{sum(met)} of {len(met)} goals met, {result['seconds']:.0f} s")
    return "\n".join(lines)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
