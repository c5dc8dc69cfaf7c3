"""Before against after: the same episodes in pairs, an exact test, and no number where protocols differ."""

from dataclasses import replace
from itertools import product

import pytest
from helpers.eval_results import eval_result

from rlft.evaluate.result import COUNTS, compare, mcnemar_exact


def brute_force_p(gained: int, lost: int) -> float:
    """Share of all coin sequences that are at least as lopsided as the one seen."""
    seen = abs(gained - lost)
    sequences = list(product((1, -1), repeat=gained + lost))
    return sum(abs(sum(sequence)) >= seen for sequence in sequences) / len(sequences)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 0), (4, 3), (3, 3), (9, 2), (2, 9)])
def test_mcnemar_counts_coin_sequences(gained: int, lost: int):
    assert mcnemar_exact(gained, lost) == pytest.approx(brute_force_p(gained, lost), abs=1e-12)


def test_mcnemar_stays_exact_for_many_episodes():
    # 60 gained, 1 lost: 2 * (1 + 61) / 2^61
    assert mcnemar_exact(60, 1) == pytest.approx(124 / 2**61, rel=1e-12)


def test_episodes_are_paired_by_their_place():
    before = eval_result("sft", [i < 8 for i in range(20)])
    after = eval_result("rl", [i not in (0, 1, 18, 19) for i in range(20)])
    counts = {"both": 6, "gained": 10, "lost": 2, "neither": 2, "pairs": 20}
    said = {"before": "sft", "after": "rl", "differences": [], "intervals_apart": False}
    said["gain_points"] = pytest.approx(100 * (after.success - before.success))
    # Twice the chance of at most two heads in twelve throws: 1, 12 and 66 of 4096 sequences.
    said["p_value"] = pytest.approx(2 * (1 + 12 + 66) / 4096)
    assert compare(before, after) == said | counts


def test_evaluations_of_other_protocols_are_told_and_not_compared():
    before = eval_result("sft", [False] * 100)
    compared = compare(before, eval_result("rl", [True] * 101, max_episode_steps=80, make_kwargs='{"obj_set":"test"}'))
    assert compared["differences"] == [
        'make_kwargs: {} before, {"obj_set":"test"} after',
        "max_episode_steps: 50 before, 80 after",
        "episodes: 100 before, 101 after",
    ]
    assert [compared[key] for key in COUNTS] == [None] * len(COUNTS)


def test_episodes_that_share_a_seed_are_all_counted():
    """Seeds are 31 bits of a hash: among 100,000 episodes some are equal."""
    before, after = eval_result("sft", [True, False, False]), eval_result("rl", [True, True, False])
    for result in (before, after):
        result.per_episode[:] = [replace(episode, seed=7) for episode in result.per_episode]
    compared = compare(before, after)
    assert [compared[key] for key in COUNTS[:5]] == [1, 1, 0, 1, 3]
