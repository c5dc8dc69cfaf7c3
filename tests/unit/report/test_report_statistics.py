import math
from itertools import product

import pytest

from rlft.report.statistics import PairedOutcome, mcnemar_exact, pair_outcomes


def brute_force_p(gained: int, lost: int) -> float:
    """Share of all coin sequences that are at least as lopsided as the one seen."""
    seen = abs(gained - lost)
    sequences = list(product((1, -1), repeat=gained + lost))
    return sum(abs(sum(sequence)) >= seen for sequence in sequences) / len(sequences)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 0), (4, 3), (3, 3), (9, 2), (2, 9)])
def test_mcnemar_counts_coin_sequences(gained: int, lost: int):
    assert mcnemar_exact(gained, lost) == pytest.approx(brute_force_p(gained, lost), abs=1e-12)


def test_mcnemar_stays_exact_for_many_seeds():
    # 60 gained, 1 lost: 2 * (1 + 61) / 2^61
    assert mcnemar_exact(60, 1) == pytest.approx(124 / 2**61, rel=1e-12)


def test_pairs_are_formed_by_index_and_not_by_order():
    before = {1: True, 2: False, 3: False, 4: True, 9: True}
    after = {4: False, 3: True, 2: False, 1: True, 8: True}
    assert pair_outcomes(before, after) == PairedOutcome(both=1, gained=1, lost=1, neither=1)


def test_gain_in_points_equals_the_difference_of_the_rates():
    outcome = PairedOutcome(both=30, gained=41, lost=5, neither=24)
    assert outcome.gain_points == pytest.approx(100 * ((30 + 41) / 100 - (30 + 5) / 100))
    assert PairedOutcome(0, 0, 0, 0).gain_points == 0.0
    assert math.isclose(PairedOutcome(0, 0, 0, 0).p_value, 1.0)
