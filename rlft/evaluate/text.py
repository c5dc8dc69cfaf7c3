"""An evaluation as text: numbers for every table, and tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlft.evaluate.protocol import SHORT
from rlft.evaluate.result import EvalResult, Stratum

MAX_ROWS = 40  # of one label; the file holds them all


def percent(rate: float | None) -> str:
    """A share of 0..1; a dash where there is none."""
    return "–" if rate is None or not math.isfinite(rate) else f"{100 * rate:.1f} %"


def interval(ends: Sequence[float]) -> str:
    """An interval of a share."""
    return f"{100 * ends[0]:.1f}–{100 * ends[1]:.1f} %"


def difference(value: float | None, ends: Sequence[float] | None) -> str:
    """A difference of two shares in points, with its interval; a dash where there is none."""
    if value is None or ends is None:
        return "–"
    return f"{100 * value:+.1f} points [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]"


def summary_line(result: EvalResult) -> str:
    """Success with its interval, at any step and at the end, and the protocol's hash."""
    return (
        f"{result.label}: {result.successes} of {result.episodes} episodes succeed, "
        f"{_rate(result.success, result.ci95)}; at the end {_rate(result.success_at_end, result.ci95_at_end)}; "
        f"protocol {result.protocol_hash[:SHORT]}"
    )


def strata_text(result: EvalResult) -> str:
    """Success by each label; empty where none has two values."""
    return "\n\n".join(_table(result, key, rows) for key, rows in result.strata.items() if len(rows) > 1)


def _table(result: EvalResult, key: str, rows: Sequence[Stratum]) -> str:
    without, shown = result.strata_total.get(key, 0) - len(rows), rows[:MAX_ROWS]
    missing = f", {without} of its {result.strata_total[key]} values had no episode" if without > 0 else ""
    width = max(len(row.name) for row in shown)
    lines = [f"by {key} (the mean of the rows is {100 * result.macro[key]:.1f} %{missing})"]
    lines += [
        f"  {row.name:<{width}}  {row.successes:>4} of {row.episodes:<4} {_rate(row.success, row.ci95, 5)}; "
        f"at the end {100 * row.success_at_end:.1f} %"
        for row in shown
    ]
    return "\n".join(lines + [f"  and {len(rows) - MAX_ROWS} more in the file"] * (len(rows) > MAX_ROWS))


def _rate(rate: float, ends: Sequence[float], width: int = 0) -> str:
    return f"{100 * rate:{width}.1f} % [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
