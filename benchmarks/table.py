"""The result file and the table that a person reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
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


def number(value: float | None) -> str:
    """At least three significant digits as plain decimals, two for numbers below 0.01; a dash where there is none."""
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


def goal(row: Mapping[str, Any]) -> str:
    """The goal of a row as a bound."""
    return "-" if row["goal"] is None else f"{'<=' if row['at_most'] else '>='} {number(row['goal'])}"


def verdict(row: Mapping[str, Any]) -> str:
    """``met``, ``missed``, or nothing where there is no goal."""
    return "" if row["met"] is None else "met" if row["met"] else "missed"


def read_results(directory: Path = RESULTS) -> dict[str, Mapping[str, Any]]:
    """All kept results, by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))}
