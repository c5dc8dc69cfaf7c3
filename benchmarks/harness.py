"""What a benchmark is made of: settings, rows, and a comparison of two sides in alternating pairs.

A benchmark is a module of this package with ``BUDGET_S`` and ``run(settings) -> Iterator[Row]``. It is stopped after
``BUDGET_S`` seconds times :func:`slowness`. It runs in a process of its own and may import whatever it needs inside
``run``. Every row that was yielded is kept, also when the benchmark fails later.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rlft.files import to_json

CALIBRATION_S = 0.12  # of calibration_work on a free core of the machine of results/bench_cpu.json
PAIRS = 5
QUICK_PAIRS = 2


@dataclass(frozen=True)
class Settings:
    """How thorough a benchmark is.

    Attributes:
        quick: two pairs and the smallest sizes: says whether it runs, not how fast.
        pairs: pairs of each comparison.
    """

    quick: bool = False

    @property
    def pairs(self) -> int:
        """Pairs of each comparison: at least 5 where the number counts."""
        return QUICK_PAIRS if self.quick else PAIRS


@dataclass(frozen=True)
class Row:
    """One measured number, its goal, and what it was measured on.

    Attributes:
        benchmark: the benchmark's name.
        case: the sizes, in a few words.
        measure: what ``value`` is: ``ratio`` (ours over theirs, more is better), or another name.
        value: the number that the goal is about: a median over pairs where it is a ratio.
        low: the smallest over the pairs.
        high: the largest over the pairs.
        ours: our side's median, in ``unit``.
        theirs: the other side's median, in ``unit``; None where there is no other side.
        unit: of ``ours`` and ``theirs``.
        baseline: what the other side is, in a few words.
        pairs: how many pairs (or repetitions) there were.
        goal: the bound on ``value``; None where the row only informs.
        at_most: the goal is an upper bound; otherwise a lower one.
        explanation: what limits the number, said with measured numbers; shown where the goal is missed.
        facts: further measured numbers and sizes.
    """

    benchmark: str
    case: str
    measure: str
    value: float
    low: float
    high: float
    ours: float
    theirs: float | None
    unit: str
    baseline: str
    pairs: int
    goal: float | None = None
    at_most: bool = False
    explanation: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal. A number that is not finite reaches none."""
        if self.goal is None:
            return None
        return bool(self.value <= self.goal if self.at_most else self.value >= self.goal)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with ``met``."""
        return to_json({**asdict(self), "met": self.met})


@dataclass(frozen=True)
class Pairs:
    """Rates of both sides, pair by pair; more is better.

    Attributes:
        ours: per pair, units of work per second.
        theirs: the same of the other side.
    """

    ours: Sequence[float]
    theirs: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, per pair."""
        return [mine / other for mine, other in zip(self.ours, self.theirs)]

    def row(self, benchmark: str, case: str, *, unit: str, baseline: str, **more: Any) -> Row:
        """The row about these pairs: the median of the pairs' ratios, never the ratio of medians.

        Args:
            benchmark: see :class:`Row`.
            case: see :class:`Row`.
            unit: see :class:`Row`.
            baseline: see :class:`Row`.
            more: ``goal``, ``explanation``, ``facts``.
        """
        ratios = self.ratios
        return Row(
            benchmark=benchmark,
            case=case,
            measure="ratio",
            value=statistics.median(ratios),
            low=min(ratios),
            high=max(ratios),
            ours=statistics.median(self.ours),
            theirs=statistics.median(self.theirs),
            unit=unit,
            baseline=baseline,
            pairs=len(ratios),
            **more,
        )


def rate(work: Callable[[], float]) -> float:
    """Units of work per second of one call; ``work`` returns how many units it did."""
    started = time.perf_counter()
    units = work()
    return units / (time.perf_counter() - started)


def in_turns(
    works: Mapping[str, Callable[[], float]],
    rounds: int,
    warm_up: int = 1,
    before: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Measure several sides in turns, so that what else the machine does meets all alike.

    The order is reversed from round to round: a b, b a, a b, ...

    Args:
        works: name -> does some work and returns how many units it did.
        rounds: how often each is measured.
        warm_up: calls of each before, not counted.
        before: called before every work, not timed: brings all sides to the same state.

    Returns:
        name -> units per second, one number per round.

    Raises:
        ValueError: no round is asked for.
    """
    if rounds < 1:
        raise ValueError(f"pairs = {rounds}; at least 1 is needed")
    for _ in range(warm_up):
        for work in works.values():
            work()
    rates: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds):
        for name in list(works) if turn % 2 == 0 else list(works)[::-1]:
            if before is not None:
                before()
            rates[name].append(rate(works[name]))
    return rates


def alternate(ours: Callable[[], float], theirs: Callable[[], float], pairs: int, warm_up: int = 1) -> Pairs:
    """Measure two sides in turns; see :func:`in_turns`."""
    rates = in_turns({"ours": ours, "theirs": theirs}, pairs, warm_up)
    return Pairs(rates["ours"], rates["theirs"])


def calibration_work() -> None:
    """A fixed amount of what benchmarks do: Python, small tensor operations, matrix products; one thread."""
    import torch

    torch.set_num_threads(1)
    total, row, matrix = 0, torch.ones(8), torch.full((256, 256), 1e-3)
    for i in range(500_000):
        total += i & 7
    for _ in range(10_000):
        row = row * 0.5 + 0.5
    for _ in range(60):
        matrix = matrix @ matrix


def slowness(work: Callable[[], None] = calibration_work, rounds: int = 5) -> tuple[float, float]:
    """How many times longer than on the reference machine work takes here and now.

    The median over the rounds, after one that is not counted.

    Returns:
        by the clock on the wall, what else the machine does included; and by the processor's time alone.
    """
    work()
    wall, processor = [], []
    for _ in range(rounds):
        at, spent = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - at)
        processor.append(time.process_time() - spent)
    return statistics.median(wall) / CALIBRATION_S, statistics.median(processor) / CALIBRATION_S


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The b of seconds = a size^b, by least squares of log seconds over log size.

    Raises:
        ValueError: fewer than two different sizes, or a number that has no logarithm.
    """
    import math

    if len(sizes) != len(seconds) or len(set(sizes)) < 2 or min(*sizes, *seconds) <= 0:
        raise ValueError(f"sizes {list(sizes)} and seconds {list(seconds)}: two different sizes, all positive")
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    return statistics.linear_regression(x, y).slope
