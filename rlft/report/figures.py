"""The figures of a report. Each ``draw_*`` fills one set of axes and says so where its data are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rlft.report.evalfiles import Evaluation
from rlft.report.pairs import Strip
from rlft.report.rundir import RunFiles
from rlft.report.series import Curve, evaluated_success, logged, rollout_success
from rlft.report.style import ACCENT, AFTER, BEFORE, INK, MUTED
from rlft.report.summary import comparison

DOTS: dict[str, Any] = {"marker": "o", "markersize": 2.2}  # a value between two gaps has no line, but a dot


def draw_success(ax: Axes, run: RunFiles) -> None:
    """Success over PPO iterations: rollouts with Wilson's band, evaluations with their intervals."""
    rollouts, evaluations = rollout_success(run), evaluated_success(run)
    ax.set(title="Success over PPO iterations", xlabel="iteration", ylim=(-0.02, 1.02))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if rollouts.empty and evaluations.empty:
        return _nothing(ax, "no rl or eval lines in metrics.jsonl")
    if not rollouts.empty:
        ax.fill_between(rollouts.steps, rollouts.low, rollouts.high, color=BEFORE, alpha=0.25, linewidth=0)
        ax.plot(rollouts.steps, rollouts.values, color=BEFORE, label="rollouts, exploring", **DOTS)
    if not evaluations.empty:
        ax.vlines(evaluations.steps, evaluations.low, evaluations.high, color=AFTER, linewidth=1.2)
        ax.plot(evaluations.steps, evaluations.values, color=AFTER, marker="o", markersize=4, label="evaluation")
    ax.legend(loc="lower right")
    return _whole_numbers(ax)


def draw_before_after(ax: Axes, run: RunFiles) -> None:
    """Success before and after PPO on the evaluation seeds, with 95 % Wilson intervals."""
    ax.set(title="Evaluation success", ylim=(0, 1.12))
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    sides = [("warm-up", run.before, BEFORE), ("after PPO", run.after, AFTER)]
    known: list[tuple[str, Evaluation, str]] = [(name, e, colour) for name, e, colour in sides if e is not None]
    if not known:
        return _nothing(ax, "no eval_sft.json or eval_rl.json")
    for x, (_, evaluation, colour) in enumerate(known):
        low, high = evaluation.ci95
        ax.bar(x, evaluation.success, width=0.55, color=colour)
        ax.vlines(x, low, high, color=INK, linewidth=1.4)
        ax.annotate(f"{100 * evaluation.success:.1f} %", (x, high), (0, 4), textcoords="offset points", ha="center")
    ax.set_xticks(range(len(known)), [f"{name}\n{e.successes} of {len(e.episodes)}" for name, e, _ in known])
    ax.set_xlim(-0.6, len(known) - 0.4)
    compared = comparison(run)
    if compared and compared["differences"]:
        ax.set_xlabel("other protocols: not comparable")
    elif compared:
        ax.set_xlabel(f"{compared['gain_points']:+.1f} points, exact p = {compared['p_value']:.2g}")
    return None


def draw_returns(ax: Axes, run: RunFiles) -> None:
    """Mean return (left) and mean length (right) of the episodes that ended in each iteration."""
    returns, lengths = logged(run, "rl", "rollout/return"), logged(run, "rl", "rollout/episode_length")
    ax.set(title="Rollout return and episode length", xlabel="iteration")
    _twin(ax, returns, "return", lengths, "length, env steps", "no rl lines in metrics.jsonl")


def draw_update(ax: Axes, run: RunFiles) -> None:
    """KL per update in joint nats (left) and the share of clipped ratios (right)."""
    kl, clipped = logged(run, "rl", "update/kl"), logged(run, "rl", "update/clip_fraction")
    ax.set(title="KL and clipped ratios", xlabel="iteration")
    _twin(ax, kl, "KL, joint nats", clipped, "clip fraction", "no rl lines in metrics.jsonl")


def draw_value(ax: Axes, run: RunFiles) -> None:
    """Explained variance of the critic: 1 is perfect, 0 as good as a constant."""
    curve = logged(run, "rl", "value/explained_variance")
    ax.set(title="Critic: explained variance", xlabel="iteration")
    if curve.empty:
        return _nothing(ax, "no rl lines in metrics.jsonl")
    ax.axhline(0, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.plot(curve.steps, curve.values, color=AFTER, **DOTS)
    # A critic that has not started yet may read -50; that must not flatten the rest of the curve.
    ax.set_ylim(max(-1.0, float(np.nanmin(curve.values)) - 0.1), 1.05)
    return _whole_numbers(ax)


def draw_sft(ax: Axes, run: RunFiles) -> None:
    """Flow-matching loss of the warm-up over optimiser steps."""
    curve = logged(run, "sft", "loss")
    ax.set(title="Warm-up loss", xlabel="optimiser step", ylabel="flow-matching loss")
    if curve.empty:
        return _nothing(ax, "no sft lines in metrics.jsonl")
    ax.plot(curve.steps, curve.values, color=BEFORE, **DOTS)
    if np.nanmin(curve.values) > 0:
        ax.set_yscale("log")
    return None


def draw_overview(figure: Figure, run: RunFiles, strip: Strip | None, title: str) -> None:
    """The picture for a README: success, before and after, health of the updates, and what it looks like."""
    rows = figure.subfigures(2 if strip else 1, 1, height_ratios=[2.1, 1.0][: 2 if strip else 1], squeeze=False)[:, 0]
    axes = rows[0].subplot_mosaic([["success"] * 4 + ["bars"] * 2, ["returns"] * 2 + ["update"] * 2 + ["value"] * 2])
    drawers: dict[str, Callable[[Axes, RunFiles], None]] = {
        "success": draw_success,
        "bars": draw_before_after,
        "returns": draw_returns,
        "update": draw_update,
        "value": draw_value,
    }
    for name, draw in drawers.items():
        draw(axes[name], run)
    if strip:
        _draw_strip(rows[1], strip)
    figure.suptitle(title, x=0.012, ha="left", fontsize=12.5, fontweight="bold", color=INK)


def _draw_strip(figure: Figure, strip: Strip) -> None:
    axes = figure.subplots(2, len(strip.before), squeeze=False, gridspec_kw={"wspace": 0.01, "hspace": 0.02})
    sides = ((strip.before, "warm-up", strip.before_success), (strip.after, "after PPO", strip.after_success))
    for row, (frames, name, success) in zip(axes, sides, strict=True):
        for ax, frame in zip(row, frames, strict=True):
            ax.imshow(frame, interpolation="antialiased")
            ax.set_axis_off()
        label = f"{name}\n{'success' if success else 'failure'}"
        row[0].annotate(label, (0, 0.5), (-8, 0), "axes fraction", "offset points", ha="right", va="center", fontsize=9)
    which = ", the first recorded one that PPO gained" if strip.after_success and not strip.before_success else ""
    caption = f"Evaluation seed {strip.seed}{which}: first frame to last"
    figure.suptitle(caption, x=0.012, ha="left", fontsize=10, color=INK)


def _twin(ax: Axes, left: Curve, left_name: str, right: Curve, right_name: str, missing: str) -> None:
    if left.empty and right.empty:
        return _nothing(ax, missing)
    other = ax.twinx()
    other.grid(visible=False)
    ax.plot(left.steps, left.values, color=AFTER, **DOTS)
    other.plot(right.steps, right.values, color=ACCENT, linestyle=(0, (4, 1.6)), **DOTS)
    ax.set_ylabel(left_name, color=AFTER)
    other.set_ylabel(right_name, color=ACCENT)
    return _whole_numbers(ax)


def _whole_numbers(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _nothing(ax: Axes, why: str) -> None:
    ax.grid(visible=False)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=MUTED)
