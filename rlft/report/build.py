"""From a run directory to summary.json, report.png and report.html."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from rlft.errors import require_extra
from rlft.files import to_json, write_text_atomically
from rlft.report.rundir import read_run
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

    The same files give the same summary and page. The rounding of single pixels in the image is the rasteriser's,
    and of single bits inside the page's videos the H.264 encoder's.

    Args:
        run_dir: ``outputs/<name>``; stages that were not run are left out, and named.

    Returns:
        the three files, each written whole or not at all.

    Raises:
        NotADirectoryError: there is no such directory.
        rlft.errors.RlftError: a file or video is damaged, and named; or what draws is not installed, which leaves
            summary.json alone.
    """
    run = read_run(Path(run_dir))
    summary = to_json(summarise(run))
    paths = ReportPaths(*(run.directory / name for name in ("summary.json", "report.png", "report.html")))
    write_text_atomically(paths.summary, json.dumps(summary, indent=2, allow_nan=False) + "\n")

    require_extra("report", "matplotlib", "jinja2", "av")
    from rlft.report.figures import overview
    from rlft.report.page import render_page
    from rlft.report.pairs import find_pairs
    from rlft.report.video import write_whole

    pairs = find_pairs(run)
    title = (summary["env_id"] or summary["name"]) + ("" if summary["seed"] is None else f", seed {summary['seed']}")
    png, html = overview(run, pairs, title), render_page(run, summary, pairs, title)
    write_whole(paths.png, png)
    write_text_atomically(paths.html, html)
    for name in run.missing:
        log.info("%s is not in %s: the report leaves out what it would show", name, run.directory)
    return paths
