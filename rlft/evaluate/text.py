"""An evaluation as text: numbers for every table, and tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlft.evaluate.protocol import SHORT
from rlft.evaluate.result import EvalResult
from rlft.evaluate.strata import Stratum

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
    return "\n\n".join(
        "\n".join([_title(result, key), *_lines(rows)]) for key, rows in result.strata.items() if len(rows) > 1
    )


def _title(result: EvalResult, key: str) -> str:
    shown, total = len(result.strata[key]), result.strata_total.get(key)
    missing = f", {total - shown} of its {total} values had no episode" if total is not None and total > shown else ""
    return f"by {key} (the mean of the rows is {100 * result.macro[key]:.1f} %{missing})"


def _lines(rows: Sequence[Stratum]) -> list[str]:
    width = max(len(row.name) for row in rows[:MAX_ROWS])
    lines = [
        f"  {row.name:<{width}}  {row.successes:>4} of {row.episodes:<4} {_rate(row.success, row.ci95, 5)}; "
        f"at the end {100 * row.success_at_end:.1f} %"
        for row in rows[:MAX_ROWS]
    ]
    return lines + ([f"  and {len(rows) - MAX_ROWS} more in the file"] if len(rows) > MAX_ROWS else [])


def _rate(rate: float, ends: Sequence[float], width: int = 0) -> str:
    return f"{100 * rate:{width}.1f} % [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
