"""Intervals of success rates, and how well values are explained."""

import math

import torch

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a success rate, in [0, 1] (Wilson 1927, J. Am. Stat. Assoc. 22:209).

    Raises:
        ValueError: not 0 <= successes <= trials, or no trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"successes={successes}, trials={trials}: wanted 0 <= successes <= trials and trials >= 1")
    rate, z = successes / trials, Z95
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # At the ends the exact bound is 0 or 1; rounding must not move it inside.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high


def difference_interval(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float]:
    """Newcombe's 95 % interval of ``first - second``, two independent rates as (successes, trials); in [-1, 1].

    From their Wilson intervals: method 10 of Newcombe 1998, Statistics in Medicine 17:873.
    """
    (p, (low_p, high_p)), (q, (low_q, high_q)) = ((wins / n, wilson_interval(wins, n)) for wins, n in (first, second))
    return (p - q) - math.hypot(p - low_p, high_q - q), (p - q) + math.hypot(high_p - p, q - low_q)


def explained_variance(predicted: torch.Tensor, target: torch.Tensor) -> float:
    """1 - Var(target - predicted) / Var(target): 1 is perfect, 0 no better than the mean; NaN for a constant target."""
    if predicted.shape != target.shape:
        raise ValueError(f"predicted {tuple(predicted.shape)} and target {tuple(target.shape)} differ in shape")
    variance = float(target.double().var(unbiased=False)) if target.numel() else 0.0
    if variance == 0.0:
        return math.nan
    return 1.0 - float((target.double() - predicted.double()).var(unbiased=False)) / variance
