"""What an evaluation found: every episode, the tables and texts made of them, and how another one compares."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from rlft.errors import RlftError
from rlft.evaluate.protocol import SHORT, Episode, EvalProtocol
from rlft.files import content_hash
from rlft.statistics import wilson_interval

COUNTS = ("both", "gained", "lost", "neither", "pairs", "gain_points", "p_value", "intervals_apart")  # of a comparison
MAX_ROWS = 40  # of one label in the terminal; the file holds them all
NEEDED = {"env_id", "episodes", "max_episode_steps"}  # of a protocol, by what reads results

# Result files hold null where a number was not finite.
Measured = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]


@dataclass(frozen=True)
class EpisodeResult(Episode):
    """What came of one evaluation episode."""

    success_once: bool  # success at any step
    success_at_end: bool  # success at the last step
    steps: int  # its length, environment steps
    episode_return: Measured  # undiscounted sum of the rewards
    metrics: Mapping[str, Measured] = field(default_factory=dict)  # the task's metrics at its last step


@dataclass(frozen=True)
class Stratum:
    """Success of the episodes that share one label."""

    name: str  # the label's value
    episodes: int  # how many
    successes: int  # episodes with success at any step
    success: float  # the rate of these
    ci95: tuple[float, float]  # its Wilson interval
    success_at_end: float  # rate of episodes that were successful at their last step


@dataclass
class EvalResult:
    """A finished evaluation."""

    label: str  # which policy this is
    protocol: dict[str, Any]  # what was run; see :meth:`rlft.evaluate.protocol.EvalProtocol.to_dict`
    protocol_hash: str  # its hash; only results of the same hash can be compared
    policy: str | None  # fingerprint of the evaluated weights, or None where they are in no file
    episodes: int  # how many were run
    successes: int  # episodes with success at any step
    success: float  # the rate of these (success_once)
    ci95: tuple[float, float]  # its Wilson interval
    success_at_end: float  # rate of episodes that were successful at their last step
    ci95_at_end: tuple[float, float]  # its Wilson interval
    mean_steps: float  # mean episode length, environment steps
    mean_return: Measured  # mean undiscounted return
    metrics: dict[str, Measured]  # task metric -> its mean over the episodes' last steps
    strata: dict[str, list[Stratum]]  # label -> success by its values
    macro: dict[str, float]  # label -> mean of its values' rates: each counts once, however many episodes it had
    strata_total: dict[str, int]  # label -> values that the task has, if it says so: those never run have no row
    seconds: float  # wall time
    restarted: int  # episodes run again because the simulator failed in them
    per_episode: list[EpisodeResult]  # every episode, by index

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the JSON of one. The name ``eval_<label>.json`` decides: a copy can be kept under another.

        Raises:
            RlftError: it is damaged, by another version, or contradicts itself; names the file, the fields, the remedy.
        """
        label = path.stem.removeprefix("eval_")
        remedy = f"evaluate that checkpoint again with eval.label={label}, or move the file away to do without it"
        result = load_result(cls, path, remedy)
        result.label = label
        if problem := result._contradiction():
            raise RlftError(f"{path}: {problem}; {remedy}")
        return result

    def _contradiction(self) -> str | None:
        if content_hash(self.protocol) != self.protocol_hash or not self.protocol.keys() >= NEEDED:
            return "protocol_hash is not that of the protocol beside it, or of another version's"
        total, wins = len(self.per_episode), sum(e.success_once for e in self.per_episode)
        if not total or [e.index for e in self.per_episode] != list(range(self.protocol["episodes"])):
            return f"per_episode does not hold each of the protocol's {self.protocol['episodes']} episodes, in order"
        if (self.episodes, self.successes, self.success) != (total, wins, wins / total):
            said = f"episodes={self.episodes}, successes={self.successes}, success={self.success}"
            return f"{said} contradict per_episode, which holds {wins} of {total}"
        return None

    @property
    def max_episode_len(self) -> int:
        """Time limit, environment steps."""
        return int(self.protocol["max_episode_steps"])

    def scalars(self) -> dict[str, float]:
        """What is logged during training; see docs/metrics.md."""
        low, high = self.ci95
        rates = {"success": self.success, "ci_low": low, "ci_high": high, "success_at_end": self.success_at_end}
        means = {"mean_steps": self.mean_steps, "mean_return": self.mean_return}
        return rates | means | {f"task/{name}": value for name, value in self.metrics.items()}

    def failures_first(self) -> list[int]:
        """The indices of all episodes: those that never succeeded, then the others; each in the protocol's order."""
        return [e.index for e in sorted(self.per_episode, key=lambda e: (e.success_once, e.index))]


def summarise(
    label: str,
    protocol: EvalProtocol,
    results: Sequence[EpisodeResult],
    *,
    seconds: float,
    restarted: int,
    policy: str | None = None,
    values: Mapping[str, int] | None = None,
) -> EvalResult:
    """Gather the episodes of one evaluation, each once; ``values`` says how many values the task has of each label."""
    indices = sorted(e.index for e in results)
    if indices != list(range(protocol.episodes)):
        raise ValueError(f"{protocol.episodes} episodes were to run, each once; those with a result: {indices}")
    strata = tabulate((e.labels, e.success_once, e.success_at_end) for e in results)
    names = sorted({name for e in results for name in e.metrics})
    return EvalResult(
        label=label,
        protocol=protocol.to_dict(),
        protocol_hash=protocol.hash,
        policy=policy,
        **_rates([(e.success_once, e.success_at_end) for e in results]),
        ci95_at_end=wilson_interval(sum(e.success_at_end for e in results), len(results)),
        mean_steps=float(np.mean([e.steps for e in results])),
        mean_return=float(np.mean([e.episode_return for e in results])),
        metrics={name: float(np.mean([e.metrics[name] for e in results if name in e.metrics])) for name in names},
        strata=strata,
        macro={key: sum(row.success for row in rows) / len(rows) for key, rows in strata.items()},
        strata_total={key: total for key, total in (values or {}).items() if key in strata},
        seconds=seconds,
        restarted=restarted,
        per_episode=sorted(results, key=lambda e: e.index),
    )


def tabulate(outcomes: Iterable[tuple[Mapping[str, str], bool, bool]]) -> dict[str, list[Stratum]]:
    """Label key -> a row per value, by name; of each episode's labels, success at any step, success at the end."""
    groups: dict[str, dict[str, list[tuple[bool, bool]]]] = {}
    for labels, once, at_end in outcomes:
        for key, value in labels.items():
            groups.setdefault(key, {}).setdefault(value, []).append((once, at_end))
    return {key: [Stratum(name, **_rates(rows[name])) for name in sorted(rows)] for key, rows in groups.items()}


def _rates(outcomes: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    """What :class:`Stratum` and :class:`EvalResult` say of episodes' success at any step, and at the end."""
    total, wins, at_end = len(outcomes), *map(sum, zip(*outcomes, strict=True))
    known = {"episodes": total, "successes": wins, "success": wins / total, "ci95": wilson_interval(wins, total)}
    return known | {"success_at_end": at_end / total}


def load_result[T](kind: type[T], path: Path, remedy: str) -> T:
    """A dataclass from the JSON file that holds its fields; what the file has beyond them is left out.

    Raises:
        RlftError: names every field that is missing or of another type, and the remedy.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in error.errors()]
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        what = f"{'; '.join(wrong[:5])}{more}: damaged, edited, or by another version of rlft"
        raise RlftError(f"{path}: {what}; {remedy}") from error


def compare(before: EvalResult, after: EvalResult) -> dict[str, Any]:
    """Count the episodes in pairs.

    Gives the two labels; ``differences``: why the two cannot be compared (other protocols), empty where they can; and
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
    counts = outcomes[True, True], gained, lost, outcomes[False, False], outcomes.total()
    apart = after.ci95[0] > before.ci95[1] or before.ci95[0] > after.ci95[1]
    judged = 100.0 * (gained - lost) / outcomes.total(), mcnemar_exact(gained, lost), apart
    return labels | dict(zip(COUNTS, (*counts, *judged), strict=True))


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
    return "\n\n".join(_table(result, key, rows) for key, rows in result.strata.items() if len(rows) > 1)


def _table(result: EvalResult, key: str, rows: Sequence[Stratum]) -> str:
    without, shown = result.strata_total.get(key, 0) - len(rows), rows[:MAX_ROWS]
    missing = f", {without} of its {result.strata_total[key]} values had no episode" if without > 0 else ""
    width = max(len(row.name) for row in shown)
    lines = [f"by {key} (the mean of the rows is {100 * result.macro[key]:.1f} %{missing})"]
    lines += [
        f"  {row.name:<{width}}  {row.successes:>4} of {row.episodes:<4} {_rate(row.success, row.ci95, 5)}; "
        f"at the end {100 * row.success_at_end:.1f} %"
        for row in shown
    ]
    return "\n".join(lines + [f"  and {len(rows) - MAX_ROWS} more in the file"] * (len(rows) > MAX_ROWS))


def _rate(rate: float, ends: Sequence[float], width: int = 0) -> str:
    return f"{100 * rate:{width}.1f} % [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
