"""The sections of report.html. Each returns None where its files are missing, and is then left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlft.report import figures
from rlft.report.html import Markup, block, element, figure, join, paragraph, table, text, tile, video
from rlft.report.pairs import VideoPair, encode_pair
from rlft.report.rundir import RunFiles
from rlft.report.style import render_svg

MAX_VIDEOS = 12  # they are stored inside the page
WIDE, SMALL = (9.2, 3.1), (4.6, 2.9)


def head(summary: Mapping[str, Any]) -> Markup:
    """Title and the numbers that matter most."""
    seed = "" if summary["seed"] is None else f", seed {summary['seed']}"
    cameras = ", ".join(f"{c['name']} {c['width']}×{c['height']}" for c in summary["cameras"])
    parameters = summary["policy"]["parameters"]
    facts = [f"{summary['env_id'] or 'unknown task'}{seed}", cameras]
    facts += [f"{parameters:,} parameters" if parameters else ""]
    tiles = [
        _success_tile(summary["sft"], "success of the warm-up"),
        _success_tile(summary["rl"], "success after PPO"),
        _fact_tile(summary["rl"], "env_steps", "environment steps of PPO"),
        _fact_tile(summary["collect"], "episodes", "demonstrations"),
    ]
    if total := summary["seconds"]["total"]:
        tiles.append(tile(duration(total), "wall time of all stages"))
    return join(
        [
            element("h1", summary["name"]),
            paragraph("muted", " · ".join(fact for fact in facts if fact)),
            block("tiles", *(t for t in tiles if t is not None)),
        ]
    )


def missing(summary: Mapping[str, Any]) -> Markup | None:
    """Which files were not there, and so what this report cannot show."""
    if not summary["missing"]:
        return None
    names = ", ".join(summary["missing"])
    return paragraph("warning", f"Not in this run directory, and so not in this report: {names}.")


def learning(run: RunFiles) -> Markup | None:
    """The curves of PPO."""
    if not any(line["stage"] in ("rl", "eval") for line in run.metrics):
        return None
    small = [
        render_svg("returns", lambda ax: figures.draw_returns(ax, run), SMALL),
        render_svg("update", lambda ax: figures.draw_update(ax, run), SMALL),
        render_svg("value", lambda ax: figures.draw_value(ax, run), SMALL),
    ]
    wide = render_svg("success", lambda ax: figures.draw_success(ax, run), WIDE)
    note = (
        "Rollouts explore, and count the episodes that ended within an iteration: a trend, with Wilson's 95 % band. "
        "Evaluations act without exploration noise on seeds that training never sees: the claim."
    )
    return section("Learning", figure(Markup(wide), note), block("grid", *(figure(Markup(svg)) for svg in small)))


def videos(run: RunFiles, pairs: list[VideoPair]) -> Markup | None:
    """The same seeds before (left) and after (right), started together; single videos where there are no pairs."""
    if not pairs:
        return _single_videos(run)
    shown = []
    for pair in pairs[:MAX_VIDEOS]:
        label = f"evaluation seed {pair.seed} before and after PPO"
        sides = [_outcome("before", pair.before.success), " · ", _outcome("after", pair.after.success)]
        caption = join([f"episode {pair.index}, seed {pair.seed}: ", *sides])
        shown.append(figure(video(encode_pair(pair), label), caption))
    note = (
        "Left the warm-up, right after PPO, on the same seed. Each evaluation records its failures first, and the "
        "later one also what the earlier one recorded: these pairs are no sample of all episodes."
    )
    return section("Rollouts side by side", paragraph("muted", note), block("grid", *shown))


def _single_videos(run: RunFiles) -> Markup | None:
    if not run.videos:
        return None
    shown = [
        figure(video(v.path.read_bytes(), f"{v.label}, episode {v.index}"), _outcome(f"{v.label} {v.index}", v.success))
        for v in run.videos[:MAX_VIDEOS]
    ]
    return section("Rollouts", block("grid", *shown))


def demonstrations(run: RunFiles, summary: Mapping[str, Any]) -> Markup | None:
    """How the demonstrations were collected, failures by class with their seeds."""
    collect = summary["collect"]
    if run.collect is None or collect is None:
        return None
    rows: list[list[object]] = [
        ["episodes kept", collect["episodes"]],
        ["attempts", collect["attempts"]],
        ["planner success", percent(collect["success_rate"])],
    ]
    if collect["longer_than_limit"] is not None:
        rows.append(["longer than the policy's time limit", collect["longer_than_limit"]])
    classes: list[list[object]] = [
        [kind.replace("_", " "), count, _some(run.collect["failures"][kind])]
        for kind, count in collect["failures"].items()
    ]
    failures = table(classes or [["none", 0, ""]], ["failure class", "attempts", "seeds"])
    return section("Demonstrations", block("grid", table(rows), failures))


def warm_up(run: RunFiles) -> Markup | None:
    """The SFT loss."""
    if run.sft is None and not any(line["stage"] == "sft" for line in run.metrics):
        return None
    loss = Markup(render_svg("sft", lambda ax: figures.draw_sft(ax, run), SMALL))
    rows = [[name.replace("_", " "), number(value)] for name, value in (run.sft or {}).items()]
    return section("Warm-up", block("grid", figure(loss), table(rows)))


def cost(summary: Mapping[str, Any]) -> Markup | None:
    """Seconds per stage, and throughput."""
    parts = summary["seconds"]
    if not parts["total"]:
        return None
    rows = [[name, f"{value:.1f} s", percent(value / parts["total"])] for name, value in parts.items()]
    speeds = {
        "environment steps per second": summary["throughput"]["env_steps_per_s"],
        "samples per second of update": summary["throughput"]["samples_per_s_update"],
    }
    fast = [[name, f"{value:.1f}"] for name, value in speeds.items() if value is not None]
    stages = table(rows, ["stage", "wall time", "share"])
    return section("Time", block("grid", stages, table(fast, ["throughput", ""]) if fast else ""))


def reproduce(summary: Mapping[str, Any]) -> Markup | None:
    """The commands, versions and machine that made this run."""
    if not summary["command"]:
        return None
    commit = summary["git_commit"] or "not a git checkout"
    facts = {**(summary["versions"] or {}), "commit": commit}
    machine = {name.replace("_gib", ", GiB").replace("_", " "): value for name, value in summary["machine"].items()}
    return section(
        "Reproduce",
        element("pre", "\n".join(summary["command"])),
        block("grid", table(facts.items(), ["version", ""]), table(machine.items(), ["machine", ""])),
    )


def settings(run: RunFiles) -> Markup | None:
    """The resolved configuration, as it stands."""
    if run.config_text is None:
        return None
    folded = element("details", element("summary", "config.yaml, every setting"), element("pre", run.config_text))
    return section("Settings", folded)


def percent(value: float | None) -> str:
    """A share as text."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def interval(ends: tuple[float, float] | list[float]) -> str:
    """A 95 % interval as text."""
    return f"{100 * ends[0]:.1f}–{100 * ends[1]:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as minutes and seconds, or hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def number(value: Any) -> str:
    """A scalar as text: whole numbers grouped, others to four digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _some(seeds: Sequence[int], limit: int = 8) -> str:
    more = ", …" if len(seeds) > limit else ""
    return ", ".join(str(seed) for seed in seeds[:limit]) + more


def section(title: str, *children: object) -> Markup:
    """A part of the page under its heading."""
    return element("section", element("h2", title), *children)


def _outcome(when: str, success: bool) -> Markup:
    word = "success" if success else "failure"
    return element("span", f"{when}: {word}", attributes={"class": word})


def _success_tile(stage: Mapping[str, Any] | None, label: str) -> Markup | None:
    if stage is None or stage["success"] is None:
        return None
    return tile(percent(stage["success"]), f"{label} ({interval(stage['ci95'])}, n={stage['episodes']})")


def _fact_tile(stage: Mapping[str, Any] | None, key: str, label: str) -> Markup | None:
    return None if stage is None or stage[key] is None else tile(text(number(stage[key])), label)
