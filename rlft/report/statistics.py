"""Paired before/after statistics: the same episodes counted twice, and McNemar's exact test. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact p-value that before and after succeed equally often, from the seeds that changed.

    Under that hypothesis each changed seed is a fair coin, so ``gained`` is Binomial(gained + lost, 1/2)
    (McNemar, Psychometrika 12, 1947, in its exact form).

    Args:
        gained: seeds that failed before and succeed after.
        lost: seeds that succeeded before and fail after.
    """
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**changed)


@dataclass(frozen=True)
class PairedOutcome:
    """How the same episodes fared before and after. Counts of episodes.

    Attributes:
        both: success before and after.
        gained: failure before, success after.
        lost: success before, failure after.
        neither: failure before and after.
    """

    both: int
    gained: int
    lost: int
    neither: int

    @property
    def pairs(self) -> int:
        """Number of episodes."""
        return self.both + self.gained + self.lost + self.neither

    @property
    def p_value(self) -> float:
        """McNemar's exact two-sided p-value."""
        return mcnemar_exact(self.gained, self.lost)

    @property
    def gain_points(self) -> float:
        """Percentage points that the success rate of these episodes rose by."""
        return 100.0 * (self.gained - self.lost) / self.pairs if self.pairs else 0.0


def pair_outcomes(before: Mapping[int, bool], after: Mapping[int, bool]) -> PairedOutcome:
    """Count the four outcomes over the episodes that both hold.

    Args:
        before: episode's index -> success.
        after: episode's index -> success.
    """
    outcomes = [(before[index], after[index]) for index in before.keys() & after.keys()]
    return PairedOutcome(
        both=outcomes.count((True, True)),
        gained=outcomes.count((False, True)),
        lost=outcomes.count((True, False)),
        neither=outcomes.count((False, False)),
    )
