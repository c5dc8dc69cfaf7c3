"""The sections of report.html about evaluations: before and after, success by stratum, suites, protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlft.report import figures
from rlft.report.evalfiles import Evaluation
from rlft.report.html import Markup, block, element, figure, join, paragraph, table
from rlft.report.rundir import RunFiles
from rlft.report.sections import SMALL, interval, percent, section
from rlft.report.style import render_svg

SHORT = 12  # hexadecimal digits of a protocol's hash that are shown


def before_after(run: RunFiles, summary: Mapping[str, Any]) -> Markup | None:
    """Success before and after: bars, intervals, and the same seeds counted in pairs."""
    compared = summary["comparison"]
    if run.before is None and run.after is None:
        return None
    bars = Markup(render_svg("bars", lambda ax: figures.draw_before_after(ax, run), SMALL))
    scores = join([_mixed_warning(run), _scores(summary)])
    if compared is None:
        return section("Before and after", block("grid", figure(bars), block("", scores)))
    if compared["differences"]:
        title = "Before and after were not measured alike, so they are not compared:"
        lines = [element("li", line) for line in compared["differences"]]
        warning = block("warning", paragraph("", element("b", title)), element("ul", *lines))
        return section("Before and after", warning, block("grid", figure(bars), block("", scores)))
    return section("Before and after", block("grid", figure(bars), block("", scores, _paired_table(compared))))


def strata(run: RunFiles) -> Markup | None:
    """Success by object, plate, table and variant, of the latest evaluation that knows them."""
    found = [e for e in run.evaluations.values() if e.raw.get("strata")]
    chosen = run.after if run.after in found else (found[-1] if found else None)
    if chosen is None:
        return None
    tables = []
    for key, rows in chosen.raw["strata"].items():
        if len(rows) < 2:
            continue
        head = [key, "succeeded", "rate", "95 % interval", "at the end"]
        body = [
            [row["name"], _counted(row), percent(row["success"]), interval(row["ci95"]), percent(row["success_at_end"])]
            for row in rows
        ]
        mean = percent(chosen.raw["macro"][key])
        total = chosen.raw.get("strata_total", {}).get(key, len(rows))
        unseen = f"; {total - len(rows)} of the {total} had no episode" if total > len(rows) else ""
        tables.append(block("", table(body, head, f"by {key}; the mean of the rows is {mean}{unseen}")))
    note = f"Evaluation {chosen.label}, protocol {chosen.protocol_hash[:SHORT]}."
    return section("Success by stratum", paragraph("muted", note), block("grid", *tables)) if tables else None


def suites(run: RunFiles) -> Markup | None:
    """In and out of distribution, one table per suite."""
    parts: list[Markup] = []
    for label, suite in run.suites.items():
        parts += [
            paragraph("warning", element("b", "Not comparable. "), f"{name}: {', '.join(map(str, values))}")
            for name, values in suite["unequal"].items()
        ]
        head = ["member", "group", "succeeded", "rate", "95 % interval", "at the end", "against in distribution"]
        rows = [_suite_row(row) for row in suite["rows"]]
        parts.append(table(rows, [*head, "protocol"], f"{suite['suite']}: {label}"))
        means = [[group.replace("_", " "), percent(rate)] for group, rate in suite["groups"].items()]
        parts.append(table(means, ["group", "mean of its members"]))
    return section("Out of distribution", *parts) if parts else None


def protocols(run: RunFiles) -> Markup | None:
    """Every protocol that was run, by its hash."""
    by_hash: dict[str, list[Evaluation]] = {}
    for evaluation in run.evaluations.values():
        by_hash.setdefault(evaluation.protocol_hash, []).append(evaluation)
    parts = []
    for full, evaluations in by_hash.items():
        labels = ", ".join(evaluation.label for evaluation in evaluations)
        rows = [[key.replace("_", " "), str(value)] for key, value in evaluations[0].protocol.items()]
        summary = element("summary", f"{full[:SHORT]}: {labels}")
        parts.append(element("details", summary, paragraph("muted", full), table(rows)))
    return section("Evaluation protocols", *parts) if parts else None


def _mixed_warning(run: RunFiles) -> Markup | str:
    count = len({evaluation.protocol_hash for evaluation in run.evaluations.values()})
    if count < 2:
        return ""
    text = f"These evaluations follow {count} protocols; only rows of the same protocol can be compared."
    return paragraph("warning", element("b", text))


def _scores(summary: Mapping[str, Any]) -> Markup:
    head = ["evaluation", "succeeded", "rate", "95 % interval", "at the end", "mean steps", "protocol"]
    rows = [
        [
            label,
            _counted(result),
            percent(result["success"]),
            interval(result["ci95"]),
            percent(result["success_at_end"]),
            f"{result['mean_steps']:.1f} of {result['max_episode_len']}",
            element("code", result["protocol_hash"][:SHORT]),
        ]
        for label, result in summary["evaluations"].items()
    ]
    return table(rows, head)


def _counted(result: Mapping[str, Any]) -> str:
    return f"{result['successes']} of {result['episodes']}"


def _suite_row(row: Mapping[str, Any]) -> list[object]:
    difference, ends = row["difference"], row["difference_ci95"]
    against = "–" if difference is None else f"{100 * difference:+.1f} [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]"
    return [
        row["name"],
        row["group"].replace("_", " "),
        _counted(row),
        percent(row["success"]),
        interval(row["ci95"]),
        percent(row["success_at_end"]),
        against,
        element("code", row["protocol_hash"][:SHORT]),
    ]


def _paired_table(compared: Mapping[str, Any]) -> Markup:
    rows = [
        ["success before and after", compared["both"]],
        ["gained", compared["gained"]],
        ["lost", compared["lost"]],
        ["neither", compared["neither"]],
    ]
    caption = f"The {compared['pairs']} seeds that both evaluations ran, in pairs"
    apart = "do not overlap" if compared["intervals_apart"] else "overlap"
    verdict = (
        f"{compared['gain_points']:+.1f} points; McNemar's exact test on the {compared['gained'] + compared['lost']} "
        f"seeds that changed: p = {compared['p_value']:.3g}; the two 95 % intervals {apart}."
    )
    return join([table(rows, caption=caption), paragraph("muted", verdict)])
