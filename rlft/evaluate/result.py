"""What an evaluation found: every episode, and the tables that are made of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from rlft.errors import RlftError
from rlft.evaluate.protocol import EvalProtocol
from rlft.files import content_hash
from rlft.statistics import wilson_interval

NEEDED = {"env_id", "episodes", "max_episode_steps"}  # of a protocol, by what reads results

# Result files hold null where a number was not finite.
Measured = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]


@dataclass(frozen=True)
class EpisodeResult:
    """One evaluation episode."""

    index: int  # its place in the protocol's list
    seed: int  # of the environment
    configuration_id: int | None  # the numbered configuration; None where the seed decided
    labels: Mapping[str, str]  # what the configuration shows, as the task names it
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
    protocol: dict[str, Any]  # what was run; see :meth:`rlft.evaluate.Protocol.to_dict`
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
    # label -> how many values the task has, where it says so: those without an episode have no row
    strata_total: dict[str, int]
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
