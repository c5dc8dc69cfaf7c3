"""Samples that are balanced over strata, and success by stratum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlft.seeding import seed_for
from rlft.statistics import wilson_interval
from rlft.types import ConfigurationSpace


@dataclass(frozen=True)
class Stratum:
    """Success of the episodes that share one label."""

    name: str  # the label's value
    episodes: int  # how many
    successes: int  # episodes with success at any step
    success: float  # the rate of these
    ci95: tuple[float, float]  # its Wilson interval
    success_at_end: float  # rate of episodes that were successful at their last step


def tabulate(outcomes: Iterable[tuple[Mapping[str, str], bool, bool]]) -> dict[str, list[Stratum]]:
    """Label key -> a row per value, by name; of each episode's labels, success at any step, success at the end."""
    groups: dict[str, dict[str, list[tuple[bool, bool]]]] = {}
    for labels, once, at_end in outcomes:
        for key, value in labels.items():
            groups.setdefault(key, {}).setdefault(value, []).append((once, at_end))
    return {key: [_row(name, values[name]) for name in sorted(values)] for key, values in groups.items()}


def macro_average(rows: Sequence[Stratum]) -> float:
    """The mean of the strata's rates: each stratum counts once, however many episodes it had."""
    return sum(row.success for row in rows) / len(rows)


def stratified_sample(space: ConfigurationSpace, count: int, seed: int) -> tuple[int, ...]:
    """Draw numbered configurations without repetition, balanced over every axis of their numbers.

    However many are drawn, the counts of two values of an axis differ by at most one, and so do the counts of two
    combinations of the axes that the space balances first, then of these with each further axis in turn. Which values
    meet is shuffled by the seed. A shorter sample is the beginning of a longer one; at most all are drawn.
    """
    axes, first = space.axes, [name for name in space.balanced_first if name in space.axes]
    if not 0 < count <= space.count:
        raise ValueError(f"count={count}: wanted 1..{space.count}")
    names = first + [name for name in axes if name not in first]
    rng = np.random.default_rng(seed_for(seed, "eval-strata"))
    shuffled = [rng.permutation(axes[name]) for name in names]
    places = dict(zip(names, balanced_order([axes[name] for name in names], count), strict=True))
    values = {name: order[places[name]] for name, order in zip(names, shuffled, strict=True)}
    numbers = [0] * count
    for name, size in axes.items():
        numbers = [number * size + int(value) for number, value in zip(numbers, values[name], strict=True)]
    return tuple(numbers)


def balanced_order(sizes: Sequence[int], count: int) -> list[np.ndarray]:
    """The first cells of an order that visits every cell of a grid once, with the values of every axis taking turns.

    Axis j reads k mod n_j, shifted by one whenever it and the axes before it would start to repeat: with P the product
    of the sizes before it, digit_j(k) = (k' + floor(k' / lcm(P, n_j))) mod n_j, where k' = k mod P n_j. Within P n_j
    steps this visits each pair (k mod P, digit) once, and consecutive steps read consecutive digits: so within any
    beginning the values of an axis differ by at most one in count, and so do the cells of the first j axes.

    Returns:
        the digit of each cell, int64 ``[count]`` per axis.
    """
    k, digits, before = np.arange(count), [], 1
    for size in sizes:
        # Beyond count both stand for "not reached"; capping them keeps the products within 64 bits.
        period, repeat = min(before * size, count), min(math.lcm(before, size), count)
        within = k % period
        digits.append((within + within // repeat) % size)
        before *= size
    return digits


def _row(name: str, outcomes: Sequence[tuple[bool, bool]]) -> Stratum:
    total, wins, at_end = len(outcomes), *map(sum, zip(*outcomes, strict=True))
    return Stratum(name, total, wins, wins / total, wilson_interval(wins, total), at_end / total)
