"""Stratified samples are balanced, without repetition and named by their seed; tables count right."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from rlft.errors import RlftError
from rlft.evaluate.protocol import balanced_order, choose_ids, stratified_sample
from rlft.evaluate.result import tabulate
from rlft.statistics import wilson_interval
from rlft.types import ConfigurationSpace

MAIN = {"object": 16, "plate": 1, "table": 16, "position": 784, "yaw": 4}  # PutOnPlateInScene25Main-v3, train
ODD = {"object": 3, "extra": 4, "plate": 2, "table": 6, "yaw": 5}
HUGE = {"object": 16, "extra": 14_375, "plate": 1, "table": 16, "position": 784, "yaw": 4}


def read(number, digits):
    """The digits of a number, by repeated division."""
    found = {}
    for name in reversed(list(digits)):
        number, found[name] = divmod(number, digits[name])
    assert number == 0
    return found


def numbered(digits):
    return ConfigurationSpace(
        digits, lambda i: {name: str(value) for name, value in read(i, digits).items()}, ("object", "plate", "table")
    )


def spread(counts, kinds):
    """Largest minus smallest count, values that were never drawn included."""
    return max(counts.values()) - (min(counts.values()) if len(counts) == kinds else 0)


@pytest.mark.parametrize("digits", [MAIN, ODD, HUGE], ids=["main", "odd", "huge"])
@pytest.mark.parametrize("count", [1, 7, 16, 17, 100, 256, 300])
def test_every_digit_and_every_combination_of_the_strata_is_balanced(digits, count):
    drawn = stratified_sample(numbered(digits), count, seed=5)
    assert len(set(drawn)) == count
    assert all(0 <= number < math.prod(digits.values()) for number in drawn)
    rows = [read(number, digits) for number in drawn]
    for name, size in digits.items():
        assert spread(Counter(row[name] for row in rows), size) <= 1, name
    cells = Counter((row["object"], row["plate"], row["table"]) for row in rows)
    assert spread(cells, digits["object"] * digits["plate"] * digits["table"]) <= 1


def test_a_whole_split_is_every_configuration_once():
    total = math.prod(ODD.values())
    assert sorted(stratified_sample(numbered(ODD), total, seed=1)) == list(range(total))


@pytest.mark.parametrize("sizes", list(itertools.product([1, 2, 4, 6, 9], repeat=3)))
def test_the_order_visits_every_cell_once_and_is_balanced_in_every_beginning(sizes):
    order = np.stack(balanced_order(sizes, math.prod(sizes)))
    assert len({tuple(cell) for cell in order.T}) == math.prod(sizes)
    for axis, size in zip(order, sizes, strict=True):
        counts = np.cumsum(axis[:, None] == np.arange(size), axis=0)
        assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1


@pytest.mark.parametrize("count", [1, 5, 23, 60])
def test_a_beginning_is_the_same_however_far_the_order_is_computed(count):
    whole = np.stack(balanced_order([4, 6, 5], 120))[:, :count]
    assert np.array_equal(np.stack(balanced_order([4, 6, 5], count)), whole)


def test_the_seed_names_the_sample_and_a_shorter_one_begins_a_longer_one():
    sample = stratified_sample(numbered(MAIN), 64, seed=5)
    assert sample == stratified_sample(numbered(MAIN), 64, seed=5)
    assert sample == stratified_sample(numbered(MAIN), 200, seed=5)[:64]
    assert sample != stratified_sample(numbered(MAIN), 64, seed=6)


def test_what_is_selected():
    small = numbered({"object": 2, "table": 3})
    assert choose_ids("all", 99, 0, small) == (0, 1, 2, 3, 4, 5)
    assert sorted(choose_ids("stratified", 6, 0, small)) == [0, 1, 2, 3, 4, 5]
    drawn = choose_ids("seeds", 600, 0, small)
    assert set(drawn) == {0, 1, 2, 3, 4, 5}
    assert drawn[:10] == choose_ids("seeds", 10, 0, small)
    assert choose_ids("seeds", 600, 0, None) is None


def test_drawn_configurations_reach_beyond_the_largest_seed():
    drawn = choose_ids("seeds", 50, 0, numbered(HUGE))
    assert max(drawn) > 2**31
    assert len(set(drawn)) == 50


@pytest.mark.parametrize(
    ("select", "task", "episodes", "message"),
    [
        ("all", None, 5, "eval.select=all needs a task whose configurations are numbered"),
        ("stratified", None, 5, "use eval.select=seeds"),
        ("stratified", numbered({"object": 2}), 3, "has 2 configurations; use eval.episodes=2 or less"),
        ("all", numbered(HUGE), 3, "would run 11,540,480,000 episodes"),
    ],
)
def test_what_a_task_cannot_give_is_refused(select, task, episodes, message):
    with pytest.raises(RlftError, match=message):
        choose_ids(select, episodes, 0, task)


def test_tables_count_by_label():
    outcomes = [
        ({"object": "carrot", "table": "a"}, True, True),
        ({"object": "carrot", "table": "b"}, True, False),
        ({"object": "bread", "table": "a"}, False, False),
        ({}, True, True),
    ]
    tables = tabulate(outcomes)
    bread, carrot = tables["object"]
    assert (bread.name, bread.episodes, bread.successes, bread.success) == ("bread", 1, 0, 0.0)
    assert (carrot.name, carrot.successes, carrot.success, carrot.success_at_end) == ("carrot", 2, 1.0, 0.5)
    assert carrot.ci95 == wilson_interval(2, 2)
    assert [(row.name, row.successes, row.episodes) for row in tables["table"]] == [("a", 1, 2), ("b", 1, 1)]
