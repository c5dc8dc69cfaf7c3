"""From a run directory to summary.json, report.png and report.html."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlft.files import to_json, write_text_atomically
from rlft.report.rundir import RunFiles, read_run
from rlft.report.summary import summarise

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportPaths:
    """What :func:`build_report` wrote."""

    summary: Path
    png: Path
    html: Path


def build_report(run_dir: Path) -> ReportPaths:
    """Write a run's report from the files in its directory alone.

    The same files give the same summary and page. The rounding of single pixels in the picture is the rasteriser's,
    and of single bits inside the page's videos the H.264 encoder's.

    Args:
        run_dir: ``outputs/<name>``; stages that were not run are left out, and named.

    Returns:
        the three files, each written whole or not at all.

    Raises:
        NotADirectoryError: there is no such directory.
        rlft.report.evalfiles.RunFileError: a file is damaged; names file and line.
        rlft.report.video.VideoError: a video is damaged; names the file.
    """
    run = read_run(Path(run_dir))
    summary = to_json(summarise(run))
    paths = ReportPaths(*(run.directory / name for name in ("summary.json", "report.png", "report.html")))
    write_text_atomically(paths.summary, json.dumps(summary, indent=2, allow_nan=False) + "\n")
    png, html = _draw(run, summary)
    _write_bytes(paths.png, png)
    write_text_atomically(paths.html, html)
    for name in run.missing:
        log.info("%s is not in %s: the report leaves out what it would show", name, run.directory)
    return paths


def _draw(run: RunFiles, summary: Mapping[str, Any]) -> tuple[bytes, str]:
    """The picture and the page. Matplotlib is loaded here, so that importing rlft.report stays cheap."""
    from rlft.report import evaluations, figures, sections
    from rlft.report.html import join, page
    from rlft.report.pairs import find_pairs, make_strip
    from rlft.report.randomization import randomization
    from rlft.report.style import render_png

    pairs = find_pairs(run)
    strip = make_strip(pairs)
    title = _title(summary)
    size = (12.0, 9.0) if strip else (12.0, 6.2)
    png = render_png(lambda figure: figures.draw_overview(figure, run, strip, title), size, dpi=130)
    parts = [
        sections.head(summary),
        sections.missing(summary),
        evaluations.before_after(run, summary),
        evaluations.strata(run),
        evaluations.suites(run),
        sections.videos(run, pairs),
        sections.learning(run),
        sections.demonstrations(run, summary),
        sections.warm_up(run),
        randomization(run),
        sections.cost(summary),
        evaluations.protocols(run),
        sections.reproduce(summary),
        sections.settings(run),
    ]
    return png, page(title, join(part for part in parts if part is not None))


def _title(summary: Mapping[str, Any]) -> str:
    seed = "" if summary["seed"] is None else f", seed {summary['seed']}"
    return f"{summary['env_id'] or summary['name']}{seed}"


def _write_bytes(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
