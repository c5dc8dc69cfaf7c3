"""report.html: what template.html is given. Everything that enters the page as text is escaped there."""

import base64
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from rlft.evaluate.protocol import SHORT
from rlft.evaluate.result import EvalResult, difference, interval, percent
from rlft.report.figures import render_figure
from rlft.report.rundir import RunFiles, Video, VideoPair, as_float
from rlft.report.video import encode_video, read_video, side_by_side

MAX_VIDEOS = 12  # they are stored inside the page
SHEETS = {"sft": ("SFT", "sft"), "rollout": ("rollouts", "rl")}  # contact sheet -> what is said of it, metrics' stage
CHANGE = ("randomization/changed_pixels", "randomization/mean_change")


def render_page(run: RunFiles, summary: Mapping[str, Any], title: str) -> str:
    """The whole document; ``summary`` is what :func:`rlft.report.build.summarise` says."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "percent": percent,
        "interval": interval,
        "duration": duration,
        "scalar": scalar,
        "tenths": "{:.1f}".format,
        "short": lambda digits: digits[:SHORT],
        "spaced": lambda name: name.replace("_gib", ", GiB").replace("_", " "),
    }
    pairs = run.pairs[:MAX_VIDEOS]
    template = environment.from_string(files("rlft.report").joinpath("template.html").read_text(encoding="utf-8"))
    stages = {line["stage"] for line in run.metrics}
    shown = ["success", "returns", "update", "value"] if stages & {"rl", "eval"} else []
    shown += ["sft"] if run.sft is not None or "sft" in stages else []
    shown += ["bars"] if run.before or run.after else []
    return template.render(
        run=run,
        summary=summary,
        title=title,
        difference=difference,
        svg={name: Markup(render_figure(name, run)) for name in shown},  # our own drawing: its texts are outlines
        strata=_strata(run),
        paired=bool(pairs),
        videos=list(map(_pair, pairs)) or list(map(_single, run.videos[:MAX_VIDEOS])),
        sheets=_sheets(run),
    )


def duration(seconds: float) -> str:
    """Seconds as minutes and seconds, or hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def scalar(value: Any) -> str:
    """A value as text: whole numbers grouped, others to four digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def data_url(mime: str, content: bytes) -> str:
    """The content itself as an address."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def _strata(run: RunFiles) -> EvalResult | None:
    """The latest evaluation that knows labels of two values; PPO's before any other."""
    known = [e for e in run.evaluations.values() if any(len(rows) > 1 for rows in e.strata.values())]
    return run.after if run.after in known else known[-1] if known else None


def _pair(pair: VideoPair) -> dict[str, Any]:
    """The same episode before (left) and after (right), started together, at the frame rate of the first."""
    (before, fps), (after, _) = (read_video(video.path) for video in (pair.before, pair.after))
    return {
        "src": data_url("video/mp4", encode_video(side_by_side(before, after), fps)),
        "label": f"evaluation seed {pair.seed} before and after PPO",
        "caption": f"episode {pair.before.index}, seed {pair.seed}: ",
        "outcomes": [("before", pair.before.success), ("after", pair.after.success)],
    }


def _single(video: Video) -> dict[str, Any]:
    return {
        "src": data_url("video/mp4", video.path.read_bytes()),
        "label": f"{video.label}, episode {video.index}",
        "caption": "",
        "outcomes": [(f"{video.label} {video.index}", video.success)],
    }


def _sheets(run: RunFiles) -> list[dict[str, str]]:
    """The contact sheets of image randomisation, and how much it changed on average."""
    sheets = []
    for name, (words, stage) in SHEETS.items():
        path = run.directory / f"randomization_{name}.png"
        if path.is_file():
            lines = [line for line in run.metrics if line["stage"] == stage and CHANGE[0] in line]
            means = [sum(as_float(line[key]) for line in lines) / len(lines) for key in CHANGE] if lines else None
            changed, size = (percent(means[0]), f"{means[1]:.2f}") if means else ("–", "–")
            source = data_url("image/png", path.read_bytes())
            sheets.append({"words": words, "src": source, "changed": changed, "size": size})
    return sheets
