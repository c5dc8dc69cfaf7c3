"""Two evaluations on the same episodes: what was gained, and whether that is more than chance."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from rlft.evaluate.result import EvalResult

COUNTS = ("both", "gained", "lost", "neither", "pairs", "gain_points", "p_value", "intervals_apart")


def compare(before: EvalResult, after: EvalResult) -> dict[str, Any]:
    """Count the episodes in pairs.

    Returns:
        the two labels; ``differences``: why the two cannot be compared (other protocols), empty where they can; and
        :data:`COUNTS`, None where they cannot: in episodes, ``both`` (success before and after), ``gained``, ``lost``,
        ``neither`` and ``pairs``; percentage points gained, the exact p-value, whether the 95 % intervals are apart.
    """
    first, second, differences = before.protocol, after.protocol, list[str]()
    if before.protocol_hash != after.protocol_hash:
        keys = [key for key in first | second if first.get(key) != second.get(key)]
        differences = [f"{key}: {_short(first.get(key))} before, {_short(second.get(key))} after" for key in keys]
    labels = {"before": before.label, "after": after.label, "differences": differences}
    if differences:
        return labels | dict.fromkeys(COUNTS)
    # By index: the same protocol has the same episodes in the same order, and two of them may share a seed.
    pairs = zip(before.per_episode, after.per_episode, strict=True)
    outcomes = Counter((early.success_once, late.success_once) for early, late in pairs)
    gained, lost = outcomes[False, True], outcomes[True, False]
    return labels | {
        "both": outcomes[True, True],
        "gained": gained,
        "lost": lost,
        "neither": outcomes[False, False],
        "pairs": outcomes.total(),
        "gain_points": 100.0 * (gained - lost) / outcomes.total(),
        "p_value": mcnemar_exact(gained, lost),
        "intervals_apart": after.ci95[0] > before.ci95[1] or before.ci95[0] > after.ci95[1],
    }


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact p-value that before and after succeed equally often, from the episodes that changed.

    Under that hypothesis each changed episode is a fair coin, so ``gained`` is Binomial(gained + lost, 1/2)
    (McNemar, Psychometrika 12, 1947, in its exact form).
    """
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**changed)


def _short(value: Any, limit: int = 60) -> str:
    return text if len(text := str(value)) <= limit else text[:limit] + "…"
