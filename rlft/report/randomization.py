"""The section of report.html that shows what picture randomisation did."""

from __future__ import annotations

from rlft.report.html import Markup, data_url, element, figure, paragraph, table
from rlft.report.rundir import RunFiles, number

STAGES = {"sft": "warm-up", "rollout": "rollouts"}  # contact sheet's name -> what is said of it
METRICS = {"sft": "sft", "rollout": "rl"}  # contact sheet's name -> stage of the metrics
CHANGED, SIZE = "randomization/changed_pixels", "randomization/mean_change"


def randomization(run: RunFiles) -> Markup | None:
    """The contact sheets, and how much was changed on average."""
    sheets = {name: path for name in STAGES if (path := run.directory / f"randomization_{name}.png").is_file()}
    if not sheets:
        return None
    rows = [(words, *_means(run, METRICS[name])) for name, words in STAGES.items() if name in sheets]
    numbers = table(rows, ["pictures of", "changed pixels", "mean change, of 255"])
    shown = [_picture(path.read_bytes(), STAGES[name]) for name, path in sheets.items()]
    note = "The first pictures of each stage, per camera: as rendered, as the policy saw them, and under other draws. "
    return element(
        "section",
        element("h2", "Picture randomisation"),
        paragraph("muted", f"{note}Evaluations are never randomised."),
        numbers,
        *shown,
    )


def _means(run: RunFiles, stage: str) -> tuple[str, str]:
    lines = [line for line in run.metrics if line["stage"] == stage and CHANGED in line]
    if not lines:
        return "–", "–"
    changed, size = (sum(number(line[name]) for line in lines) / len(lines) for name in (CHANGED, SIZE))
    return f"{100 * changed:.1f} %", f"{size:.2f}"


def _picture(png: bytes, words: str) -> Markup:
    label = f"contact sheet of the {words}"
    source = data_url("image/png", png)
    return figure(Markup(f'<img src="{source}" alt="{label}">'), f"{words.capitalize()}: contact sheet.")
