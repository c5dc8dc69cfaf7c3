"""Several evaluations of one policy as one table: in distribution, and out of it."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

from rlft.config.schema import GROUPS, IN_DISTRIBUTION
from rlft.errors import RlftError
from rlft.evaluate.protocol import SHORT
from rlft.evaluate.result import EvalResult, Stratum, difference, interval, load_result, percent
from rlft.statistics import difference_interval

log = logging.getLogger(__name__)

COLUMNS = "member | group | succeeded | success | 95 % interval | at the end | against in distribution | protocol"
# What members of a suite differ in by intention: the task and what it shows.
VARIED = ("env_id", "make_kwargs", "instruction", "configuration_ids")


@dataclass(frozen=True)
class SuiteRow(Stratum):
    """Success of one member of a suite."""

    group: str  # what is unlike training
    env_id: str  # the task
    protocol_hash: str  # of its evaluation
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
    unequal: dict[str, list[str]]  # protocol fields beyond VARIED -> values: such members are not comparable

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the JSON of one; errors as :meth:`EvalResult.load`."""
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
    """Put the members' results side by side: (name, group) in the table's order, one of them in distribution."""
    base = results[next(name for name, group in members if group == IN_DISTRIBUTION)]
    rows = [_row(name, group, results[name], base) for name, group in members]
    protocols = [results[name].protocol for name, _ in members]
    values = {key: list(dict.fromkeys(json.dumps(p[key]) for p in protocols)) for key in protocols[0]}
    unequal = {key: found for key, found in values.items() if len(found) > 1 and key not in VARIED}
    by_group = {group: [row.success for row in rows if row.group == group] for group in GROUPS}
    means = {group: sum(rates) / len(rates) for group, rates in by_group.items() if rates}
    return SuiteTable(label, suite, policy, rows, means, unequal)


def markdown(table: SuiteTable) -> str:
    """The table for people."""
    lines = [f"# {table.suite}: {table.label}", "", f"Policy `{table.policy[:SHORT]}`.", ""]
    lines += [f"**Not comparable.** {name}: {', '.join(values)}." for name, values in table.unequal.items()]
    lines += [""] if table.unequal else []
    rows = [
        (row.name, row.group.replace("_", " "), f"{row.successes} of {row.episodes}", percent(row.success),
         interval(row.ci95), percent(row.success_at_end), difference(row.difference, row.difference_ci95),
         f"`{row.protocol_hash[:SHORT]}`")
        for row in table.rows
    ]  # fmt: skip
    lines += [f"| {COLUMNS} |", "|---" * len(rows[0]) + "|", *map(_cells, rows), "", "| group | mean of its members |"]
    lines += ["|---|---|", *(_cells((group.replace("_", " "), percent(rate))) for group, rate in table.groups.items())]
    return "\n".join(lines) + "\n"


def _cells(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def run_members(
    members: Mapping[str, str], policy: str, directory: Path, evaluate: Callable[[str], EvalResult]
) -> dict[str, EvalResult]:
    """The results of all members (name -> hash of the protocol) of a policy, by its fingerprint.

    Those that a file ``eval_<name>.json`` holds already are not run again; ``evaluate`` runs one and leaves its file.
    """
    results: dict[str, EvalResult] = {}
    for name, protocol_hash in members.items():
        found = finished(directory / f"eval_{name}.json", protocol_hash, policy)
        if found is not None:
            log.info("%s: done already, with this protocol and these weights", name)
        results[name] = found or evaluate(name)
    return results


def _row(name: str, group: str, result: EvalResult, base: EvalResult) -> SuiteRow:
    ours, known = ((r.successes, r.episodes) for r in (result, base))
    rates = {x.name: getattr(result, x.name) for x in fields(Stratum) if x.name != "name"}
    row = SuiteRow(name, **rates, group=group, env_id=result.protocol["env_id"], protocol_hash=result.protocol_hash)
    if result is base:
        return row
    return replace(row, difference=result.success - base.success, difference_ci95=difference_interval(ours, known))
