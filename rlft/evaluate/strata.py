"""Samples that are balanced over strata, and success by stratum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np

from rlft.metrics import wilson_interval
from rlft.seeding import seed_for

MAX_CELLS = 10_000_000  # of the product of all labels; beyond it a label is no stratum but a name


@dataclass(frozen=True)
class Stratum:
    """Success of the episodes that share one label.

    Attributes:
        name: the label's value.
        episodes: how many.
        successes: episodes with success at any step.
        success: the rate of these.
        ci95: its Wilson interval.
        success_at_end: rate of episodes that were successful at their last step.
    """

    name: str
    episodes: int
    successes: int
    success: float
    ci95: tuple[float, float]
    success_at_end: float


def tabulate(outcomes: Iterable[tuple[Mapping[str, str], bool, bool]]) -> dict[str, list[Stratum]]:
    """Success by label.

    Args:
        outcomes: per episode its labels, success at any step, success at the end.

    Returns:
        label key -> a row per value, by name.
    """
    groups: dict[str, dict[str, list[tuple[bool, bool]]]] = {}
    for labels, once, at_end in outcomes:
        for key, value in labels.items():
            groups.setdefault(key, {}).setdefault(value, []).append((once, at_end))
    return {key: [_row(name, values[name]) for name in sorted(values)] for key, values in groups.items()}


def macro_average(rows: Sequence[Stratum]) -> float:
    """The mean of the strata's rates: each stratum counts once, however many episodes it had."""
    return sum(row.success for row in rows) / len(rows)


def stratified_sample(total: int, labels: Callable[[int], Mapping[str, str]], count: int, seed: int) -> tuple[int, ...]:
    """Draw configurations without repetition, balanced over their labels.

    A cell is one combination of all labels. Cells are visited round by round, in an order in which every label's values
    take turns (:func:`_balanced_order`). So the counts of two cells differ by at most one, and where every combination
    exists those of two values of a label too, however many are drawn; only a cell that has no configuration left
    stands back. A shorter sample is the beginning of a longer one.

    Args:
        total: configurations, numbered from 0.
        labels: of a configuration; the same keys for all.
        count: how many to draw, at most ``total``.
        seed: names the draw.

    Returns:
        configuration numbers, in the order of the draw.
    """
    if not 0 < count <= total:
        raise ValueError(f"count={count}: wanted 1..{total}")
    cells, sizes = _cells(total, labels, np.random.default_rng(seed_for(seed, "eval-strata")))
    by_cell = np.argsort(cells, kind="stable")
    starts = np.searchsorted(cells[by_cell], np.arange(math.prod(sizes) + 1))
    order = [int(c) for c in _balanced_order(sizes) if starts[c] < starts[c + 1]]

    @cache
    def shuffled(c: int) -> list[int]:
        rng = np.random.default_rng(seed_for(seed, "eval-stratum", c))
        return [int(i) for i in rng.permutation(by_cell[starts[c] : starts[c + 1]])]

    rounds = (shuffled(c)[turn] for turn in range(total) for c in order if turn < starts[c + 1] - starts[c])
    return tuple(islice(rounds, count))


def _cells(
    total: int, labels: Callable[[int], Mapping[str, str]], rng: np.random.Generator
) -> tuple[np.ndarray, list[int]]:
    """The cell of every configuration, int64 ``[total]``, and the number of values of every label.

    The values of a label are shuffled, so that the balanced order pairs them anew with every seed.
    """
    keys = sorted(labels(0))
    numbers: list[dict[str, int]] = [{} for _ in keys]
    columns = np.empty((len(keys), total), np.int64)
    for i in range(total):
        row = labels(i)
        for column, known, key in zip(columns, numbers, keys, strict=True):
            column[i] = known.setdefault(row[key], len(known))
    sizes = [len(known) for known in numbers]
    if math.prod(sizes) > MAX_CELLS:
        raise ValueError(f"{math.prod(sizes)} combinations of {keys} are too many strata, at most {MAX_CELLS}")
    cells: np.ndarray = np.zeros(total, np.int64)
    for column, size in zip(columns, sizes, strict=True):
        cells = cells * size + rng.permutation(size)[column]
    return cells, sizes


def _balanced_order(sizes: Sequence[int]) -> np.ndarray:
    """Every cell of a grid once, so that within any beginning two values of an axis differ by at most one in count.

    Axis j reads k mod n_j, shifted by one whenever it and the axes before it would start to repeat: with P the product
    of the sizes before it, digit_j(k) = (k' + floor(k' / lcm(P, n_j))) mod n_j, where k' = k mod P n_j. Within P n_j
    steps this visits each pair (k mod P, digit) once, and consecutive steps read consecutive digits.

    Args:
        sizes: values per axis.

    Returns:
        row-major cell numbers, int64 ``[prod(sizes)]``.
    """
    k = np.arange(math.prod(sizes))
    order, before = np.zeros_like(k), 1
    for size in sizes:
        within = k % (before * size)
        order = order * size + (within + within // math.lcm(before, size)) % size
        before *= size
    return order


def _row(name: str, outcomes: Sequence[tuple[bool, bool]]) -> Stratum:
    total, wins = len(outcomes), sum(once for once, _ in outcomes)
    return Stratum(
        name=name,
        episodes=total,
        successes=wins,
        success=wins / total,
        ci95=wilson_interval(wins, total),
        success_at_end=sum(at_end for _, at_end in outcomes) / total,
    )
