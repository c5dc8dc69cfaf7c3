"""The speed section of docs/results.md, from files that ``python -m benchmarks`` wrote (``bench.json``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlft.errors import RlftError
from rlft.files import write_text_atomically

HEAD = """## Speed

`make bench`. Both sides of a row run in one process, in turns; the ratio is the median of the pairs' ratios (more is
better), the brackets are the smallest and the largest. Where a goal is missed, the limit that was measured stands below
the table.
"""
COLUMNS = ("benchmark", "case", "against", "ours", "theirs", "unit", "value [range]", "goal", "")


def section(benches: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The section's lines; none where there is nothing to show.

    Args:
        benches: file stem -> content of a ``bench.json``.
    """
    if not benches:
        return []
    lines = [*HEAD.splitlines(), ""]
    for name, bench in benches.items():
        lines += _one(name, bench)
    return lines


def _one(name: str, bench: Mapping[str, Any]) -> list[str]:
    rows = bench["rows"]
    machine = bench["machine"]
    facts = ", ".join(f"{key} {value}" for key, value in machine.items() if key != "versions" and value != "")
    versions = ", ".join(f"{key} {value}" for key, value in sorted(machine["versions"].items()))
    commit = bench["git_commit"] or "not a git checkout"
    lines = [
        f"### {name}",
        "",
        f"{facts}; {versions}; commit {commit}; `{' '.join(bench['command'])}`, {bench['seconds']:.0f} s.",
        "",
    ]
    lines += [_cells(COLUMNS), _cells(["---"] * len(COLUMNS))]
    lines += [_cells(_row(row)) for row in rows]
    failed = [f"- {key}: {state['status']}" for key, state in bench["benchmarks"].items() if state["status"] != "ok"]
    missed = [f"- **{row['benchmark']}**, {row['case']}: {row['explanation']}" for row in rows if row["met"] is False]
    known = [f"- {row['benchmark']}, {row['case']}: {_facts(row['facts'])}" for row in rows if row["facts"]]
    for title, items in (("Did not finish:", failed), ("Missed goals:", missed), ("Measured beside it:", known)):
        if items:
            lines += ["", title, "", *items]
    return [*lines, ""]


def _row(row: Mapping[str, Any]) -> list[str]:
    value = f"{row['measure']} {number(row['value'])} [{number(row['low'])}, {number(row['high'])}]"
    sides = [number(row["ours"]), number(row["theirs"]), row["unit"]]
    return [row["benchmark"], row["case"], row["baseline"], *sides, value, goal(row), verdict(row)]


def _facts(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_fact(value)}" for key, value in facts.items())


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key}: {_fact(item)}" for key, item in value.items()) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(_fact(item) for item in value) + "]"
    return number(value) if isinstance(value, float) else str(value)


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


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


def keep(path: Path, name: str, directory: Path) -> Path:
    """Copy a ``bench.json`` into the results.

    Args:
        path: the file that the benchmarks wrote.
        name: its stem among the results; starts with ``bench``.
        directory: the results.

    Raises:
        RlftError: the name would not be found again, the run was a quick one, or a missed goal is not explained.
    """
    bench = json.loads(path.read_text(encoding="utf-8"))
    if not name.startswith("bench"):
        raise RlftError(f"{name!r}: kept benchmarks are called bench..., as bench_cpu")
    if bench["quick"]:
        raise RlftError(f"{path}: made with --quick; its numbers count for nothing. Run make bench")
    silent = [
        f"{row['benchmark']}, {row['case']}" for row in bench["rows"] if row["met"] is False and not row["explanation"]
    ]
    if silent:
        raise RlftError(f"{path}: goals missed without an explanation: {'; '.join(silent)}")
    directory.mkdir(parents=True, exist_ok=True)
    write_text_atomically(directory / f"{name}.json", json.dumps(bench, indent=1) + "\n")
    return directory / f"{name}.json"
