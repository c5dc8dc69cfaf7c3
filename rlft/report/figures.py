"""The figures of a report. Each ``draw_*`` fills one set of axes and says so where its data are missing.

Curves come out of metrics.jsonl and the evaluation files; gaps are NaN.
"""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.style import context
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rlft.evaluate.result import percent
from rlft.report.rundir import RunFiles, VideoPair, as_float
from rlft.report.video import pick_frames, read_video
from rlft.statistics import wilson_interval

# One palette, few lines, no boxes.
INK, MUTED, GRID = "#23292f", "#69737d", "#dfe3e7"
BEFORE, AFTER, ACCENT = "#8a97a6", "#0e7c74", "#c4812b"

# What each colour becomes inside a page; the variables are defined in template.html.
THEME = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)", BEFORE: "var(--before)",
         AFTER: "var(--after)", ACCENT: "var(--accent)"}  # fmt: skip
RC = {
    "font.family": ["DejaVu Sans"], "font.size": 9.0, "text.color": INK,
    "axes.edgecolor": GRID, "axes.facecolor": "none", "axes.labelcolor": MUTED, "axes.labelsize": 8.5,
    "axes.titlecolor": INK, "axes.titlesize": 10.0, "axes.titlelocation": "left", "axes.titlepad": 9.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": GRID, "grid.linewidth": 0.7,
    "xtick.color": MUTED, "xtick.labelsize": 8.0, "xtick.major.size": 0.0,
    "ytick.color": MUTED, "ytick.labelsize": 8.0, "ytick.major.size": 0.0,
    "lines.linewidth": 1.6, "lines.solid_capstyle": "round",
    "legend.frameon": False, "legend.fontsize": 8.0, "legend.labelcolor": INK,
    "svg.fonttype": "path",  # glyphs as outlines: the layout was computed for this font, the reader may not have it
}  # fmt: skip
DOTS: dict[str, Any] = {"marker": "o", "markersize": 2.2}  # a value between two gaps has no line, but a dot
NO_RL = "no rl lines in metrics.jsonl"
RETURNS = ("rollout/return", "return"), ("rollout/episode_length", "length, env steps")
UPDATE = ("update/kl", "KL, joint nats"), ("update/clip_fraction", "clip fraction")
NOTHING = (np.nan, np.nan)  # the ends of an interval that nobody knows


@dataclass(frozen=True)
class Curve:
    """A scalar over steps; all arrays float64 ``[n]``, NaN where nothing was logged."""

    steps: np.ndarray  # ascending
    values: np.ndarray  # the scalar
    low: np.ndarray  # lower end of its 95 % interval, or NaN
    high: np.ndarray  # upper end

    @classmethod
    def of(cls, points: Mapping[int, tuple[float, tuple[float, float]]]) -> "Curve":
        """From step -> (value, ends of its interval)."""
        rows = [(step, value, *ends) for step, (value, ends) in sorted(points.items())]
        steps, *columns = np.array(rows, dtype=float).reshape(-1, 4).T
        return cls(steps, *(np.where(np.isfinite(column), column, np.nan) for column in columns))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not np.isfinite(self.values).any()


def logged(run: RunFiles, stage: str, key: str) -> Curve:
    """One scalar of one stage. A step that was logged twice (a resumed run) counts as it was logged last."""
    lines = [line for line in run.metrics if line["stage"] == stage]
    return Curve.of({int(line["step"]): (as_float(line.get(key)), NOTHING) for line in lines})


def rollout_success(run: RunFiles) -> Curve:
    """Success of the episodes that ended within each PPO iteration, with Wilson's interval over that many."""
    points = {}
    for line in run.metrics:
        if line["stage"] == "rl":
            rate, n = (as_float(line.get(f"rollout/{key}")) for key in ("success", "episodes"))
            counted = np.isfinite(rate) and n >= 1
            points[int(line["step"])] = rate, wilson_interval(round(rate * n), int(n)) if counted else NOTHING
    return Curve.of(points)


def evaluated_success(run: RunFiles) -> Curve:
    """Success on the evaluation seeds by iteration: SFT's at 0, evaluations on the way, the final one."""
    points = {}
    for line in run.metrics:
        if line["stage"] == "eval":
            rate, low, high = (as_float(line.get(key)) for key in ("success", "ci_low", "ci_high"))
            points[int(line["step"])] = rate, (low, high)
    known = run.numbered | ({0: run.before} if run.before else {})
    known |= {int(run.rl["iterations"]): run.after} if run.after and run.rl and "iterations" in run.rl else {}
    return Curve.of(points | {step: (evaluation.success, evaluation.ci95) for step, evaluation in known.items()})


def draw_success(ax: Axes, run: RunFiles) -> None:
    """Success over PPO iterations: rollouts with Wilson's band, evaluations with their intervals."""
    rollouts, evaluations = rollout_success(run), evaluated_success(run)
    ax.set(title="Success over PPO iterations", xlabel="iteration", ylim=(-0.02, 1.02))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if _nothing(ax, "no rl or eval lines in metrics.jsonl", rollouts, evaluations):
        return
    if not rollouts.empty:
        ax.fill_between(rollouts.steps, rollouts.low, rollouts.high, color=BEFORE, alpha=0.25, linewidth=0)
        ax.plot(rollouts.steps, rollouts.values, color=BEFORE, label="rollouts, exploring", **DOTS)
    if not evaluations.empty:
        ax.vlines(evaluations.steps, evaluations.low, evaluations.high, color=AFTER, linewidth=1.2)
        ax.plot(evaluations.steps, evaluations.values, color=AFTER, marker="o", markersize=4, label="evaluation")
    ax.legend(loc="lower right")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def draw_before_after(ax: Axes, run: RunFiles) -> None:
    """Success before and after PPO on the evaluation seeds, with 95 % Wilson intervals."""
    ax.set(title="Evaluation success", ylim=(0, 1.12))
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    sides = [("after SFT", run.before, BEFORE), ("after PPO", run.after, AFTER)]
    known = [(name, e, colour) for name, e, colour in sides if e is not None]
    if not known and _nothing(ax, "no eval_sft.json or eval_rl.json"):
        return
    for x, (_, evaluation, colour) in enumerate(known):
        low, high = evaluation.ci95
        ax.bar(x, evaluation.success, width=0.55, color=colour)
        ax.vlines(x, low, high, color=INK, linewidth=1.4)
        ax.annotate(percent(evaluation.success), (x, high), (0, 4), textcoords="offset points", ha="center")
    ax.set_xticks(range(len(known)), [f"{name}\n{e.successes} of {e.episodes}" for name, e, _ in known])
    ax.set_xlim(-0.6, len(known) - 0.4)
    compared = run.comparison
    if compared and compared["differences"]:
        ax.set_xlabel("other protocols: not comparable")
    elif compared:
        ax.set_xlabel(f"{compared['gain_points']:+.1f} points, exact p = {compared['p_value']:.2g}")


def draw_value(ax: Axes, run: RunFiles) -> None:
    """Explained variance of the critic: 1 is perfect, 0 as good as a constant."""
    curve = logged(run, "rl", "value/explained_variance")
    ax.set(title="Critic: explained variance", xlabel="iteration")
    if _nothing(ax, NO_RL, curve):
        return
    ax.axhline(0, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.plot(curve.steps, curve.values, color=AFTER, **DOTS)
    # A critic that has not started yet may read -50; that must not flatten the rest of the curve.
    ax.set_ylim(max(-1.0, float(np.nanmin(curve.values)) - 0.1), 1.05)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def draw_sft(ax: Axes, run: RunFiles) -> None:
    """Flow-matching loss of SFT over optimiser steps."""
    curve = logged(run, "sft", "loss")
    ax.set(title="SFT loss", xlabel="optimiser step", ylabel="flow-matching loss")
    if _nothing(ax, "no sft lines in metrics.jsonl", curve):
        return
    ax.plot(curve.steps, curve.values, color=BEFORE, **DOTS)
    if np.nanmin(curve.values) > 0:
        ax.set_yscale("log")


def draw_two(title: str, left: tuple[str, str], right: tuple[str, str], ax: Axes, run: RunFiles) -> None:
    """Two scalars of PPO, (key, label) each, with an axis of their own."""
    ax.set(title=title, xlabel="iteration")
    first, second = (logged(run, "rl", key) for key, _ in (left, right))
    if _nothing(ax, NO_RL, first, second):
        return
    other = ax.twinx()
    other.grid(visible=False)
    ax.plot(first.steps, first.values, color=AFTER, **DOTS)
    other.plot(second.steps, second.values, color=ACCENT, linestyle=(0, (4, 1.6)), **DOTS)
    ax.set_ylabel(left[1], color=AFTER)
    other.set_ylabel(right[1], color=ACCENT)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


SMALL = (4.6, 2.9)  # width and height, inches
FIGURES: dict[str, tuple[Callable[[Axes, RunFiles], None], tuple[float, float]]] = {
    "success": (draw_success, (9.2, 3.1)),
    "bars": (draw_before_after, SMALL),
    "returns": (partial(draw_two, "Rollout return and episode length", *RETURNS), SMALL),
    "update": (partial(draw_two, "KL and clipped ratios", *UPDATE), SMALL),
    "value": (draw_value, SMALL),
    "sft": (draw_sft, SMALL),
}


def overview(run: RunFiles, title: str) -> bytes:
    """The image for a README, as PNG: success, before and after, health of the updates, and what it looks like."""
    pairs, buffer = run.pairs, io.BytesIO()
    ratios = [2.1, 1.0] if pairs else [1.0]
    names = [["success"] * 4 + ["bars"] * 2, ["returns"] * 2 + ["update"] * 2 + ["value"] * 2]
    with context(RC):
        figure = Figure(figsize=(12.0, 9.0 if pairs else 6.2), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        rows = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)
        for name, ax in rows[0, 0].subplot_mosaic(names).items():
            FIGURES[name][0](ax, run)
        if pairs:
            draw_strip(rows[1, 0], next((pair for pair in pairs if pair.gained), pairs[0]))
        figure.suptitle(title, x=0.012, ha="left", fontsize=12.5, fontweight="bold", color=INK)
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def draw_strip(figure: Figure, pair: VideoPair, count: int = 7) -> None:
    """``count`` frames of one episode from first to last, before above after."""
    axes = figure.subplots(2, count, squeeze=False, gridspec_kw={"wspace": 0.01, "hspace": 0.02})
    for row, video, name in zip(axes, (pair.before, pair.after), ("after SFT", "after PPO"), strict=True):
        for ax, frame in zip(row, pick_frames(read_video(video.path)[0], count), strict=True):
            ax.imshow(frame, interpolation="antialiased")
            ax.set_axis_off()
        label = f"{name}\n{'success' if video.success else 'failure'}"
        row[0].annotate(label, (0, 0.5), (-8, 0), "axes fraction", "offset points", ha="right", va="center", fontsize=9)
    which = ", the first recorded one that PPO gained" if pair.gained else ""
    caption = f"Evaluation seed {pair.seed}{which}: first frame to last"
    figure.suptitle(caption, x=0.012, ha="left", fontsize=10, color=INK)


def render_figure(name: str, run: RunFiles) -> str:
    """One of :data:`FIGURES` as an SVG element; its title is the label that is read out.

    The name prefixes every id, which keeps ids apart within a page, and makes them reproducible.
    """
    (draw, size), buffer = FIGURES[name], io.StringIO()
    with context({**RC, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes, run)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    # The element alone, with ids of its own and colours of the page's theme.
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in THEME.items():
        svg = svg.replace(colour, variable)
    label = escape(axes.get_title(loc="left"), quote=True)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def _nothing(ax: Axes, why: str, *curves: Curve) -> bool:
    """Whether all of the curves are empty; then ``why`` stands in their place."""
    if not all(curve.empty for curve in curves):
        return False
    ax.grid(visible=False)
    ax.set(xticks=[], yticks=[])
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=MUTED)
    return True
