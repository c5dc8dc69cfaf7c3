"""Several evaluations of one policy as one table: in distribution, and out of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from rlft.config.evaluation import GROUPS, IN_DISTRIBUTION
from rlft.errors import RlftError
from rlft.evaluate.protocol import SHORT
from rlft.evaluate.result import EvalResult, load_result
from rlft.evaluate.text import difference, interval, percent
from rlft.statistics import difference_interval


@dataclass(frozen=True)
class SuiteRow:
    """One member of a suite."""

    name: str  # of the member
    group: str  # what is unlike training
    env_id: str  # the task
    protocol_hash: str  # of its evaluation
    episodes: int  # how many
    successes: int  # episodes with success at any step
    success: float  # the rate of these
    ci95: tuple[float, float]  # its Wilson interval
    success_at_end: float  # rate of episodes that were successful at their last step
    difference: float | None = None  # `success` minus the in-distribution member's; None for that one itself
    difference_ci95: tuple[float, float] | None = None  # Newcombe's interval of it


@dataclass(frozen=True)
class SuiteTable:
    """A finished suite."""

    label: str  # which policy
    suite: str  # the suite's name
    policy: str  # fingerprint of the weights
    rows: list[SuiteRow]  # the members, in their order
    groups: dict[str, float]  # group -> mean of its members' rates
    # protocol fields in which members differ beyond the task and what it shows, with their values: such members are not
    # comparable
    unequal: dict[str, list[str]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for eval_suite_<label>.json."""
        return asdict(self)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`to_dict` wrote; errors as :meth:`rlft.evaluate.EvalResult.load`."""
        remedy = "run the suite again (members that are done are kept), or move the file away to do without it"
        return load_result(cls, path, remedy)


def finished(path: Path, protocol_hash: str, policy: str) -> EvalResult | None:
    """A member's result, if that file holds one of the same protocol and weights."""
    try:
        result = EvalResult.load(path)
    except (OSError, RlftError):
        return None
    return result if (result.protocol_hash, result.policy) == (protocol_hash, policy) else None


def make_table(
    label: str, suite: str, policy: str, members: Sequence[tuple[str, str]], results: Mapping[str, EvalResult]
) -> SuiteTable:
    """Put the members' results side by side.

    Args:
        label: which policy.
        suite: the suite's name.
        policy: fingerprint of the weights.
        members: (name, group), in the order of the table; one of them is in distribution.
        results: member name -> its result.
    """
    base = results[next(name for name, group in members if group == IN_DISTRIBUTION)]
    rows = [_row(name, group, results[name], base) for name, group in members]
    by_group = {group: [row.success for row in rows if row.group == group] for group in GROUPS}
    means = {group: sum(rates) / len(rates) for group, rates in by_group.items() if rates}
    return SuiteTable(label, suite, policy, rows, means, _unequal([results[name].protocol for name, _ in members]))


def markdown(table: SuiteTable) -> str:
    """The table for people."""
    lines = [f"# {table.suite}: {table.label}", "", f"Policy `{table.policy[:SHORT]}`.", ""]
    lines += [f"**Not comparable.** {name}: {', '.join(values)}." for name, values in table.unequal.items()]
    lines += [""] if table.unequal else []
    lines += [
        "| member | group | succeeded | success | 95 % interval | at the end | against in distribution | protocol |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        cells = [
            row.name,
            row.group.replace("_", " "),
            f"{row.successes} of {row.episodes}",
            percent(row.success),
            interval(row.ci95),
            percent(row.success_at_end),
            difference(row.difference, row.difference_ci95),
            f"`{row.protocol_hash[:SHORT]}`",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| group | mean of its members |", "|---|---|"]
    lines += [f"| {group.replace('_', ' ')} | {percent(rate)} |" for group, rate in table.groups.items()]
    return "\n".join(lines) + "\n"


def run_members(
    members: Sequence[str],
    hashes: Mapping[str, str],
    policy: str,
    directory: Path,
    evaluate: Callable[[str], EvalResult],
    on_kept: Callable[[str], None],
) -> dict[str, EvalResult]:
    """The results of all members; those that a file holds already are not run again.

    Args:
        members: their names.
        hashes: name -> hash of the protocol.
        policy: fingerprint of the weights.
        directory: holds ``eval_<name>.json``.
        evaluate: runs a member, and leaves its file.
        on_kept: called with the name of a member that was found done.
    """
    results: dict[str, EvalResult] = {}
    for name in members:
        found = finished(directory / f"eval_{name}.json", hashes[name], policy)
        if found is not None:
            on_kept(name)
        results[name] = found if found is not None else evaluate(name)
    return results


# What members of a suite differ in by intention: the task and what it shows.
VARIED = ("env_id", "make_kwargs", "instruction", "episode_ids")


def _unequal(protocols: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    values = {
        key: list(dict.fromkeys(json.dumps(p[key]) for p in protocols)) for key in protocols[0] if key not in VARIED
    }
    return {key: found for key, found in values.items() if len(found) > 1}


def _row(name: str, group: str, result: EvalResult, base: EvalResult) -> SuiteRow:
    ours, known = ((r.successes, r.episodes) for r in (result, base))
    return SuiteRow(
        name=name,
        group=group,
        env_id=result.protocol["env_id"],
        protocol_hash=result.protocol_hash,
        episodes=result.episodes,
        successes=result.successes,
        success=result.success,
        ci95=result.ci95,
        success_at_end=result.success_at_end,
        difference=None if result is base else result.success - base.success,
        difference_ci95=None if result is base else difference_interval(ours, known),
    )
