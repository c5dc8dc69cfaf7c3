"""From a run directory to summary.json, report.png and report.html."""

from __future__ import annotations

import logging
from pathlib import Path

from rlft.errors import require_extra
from rlft.files import to_json, write_atomically, write_stage, write_text_atomically
from rlft.report.rundir import read_run
from rlft.report.summary import summarise

log = logging.getLogger(__name__)


def build_report(run_dir: Path) -> Path:
    """Write a run's report from the files in its directory alone; gives the page.

    The same files give the same summary and page. The rounding of single pixels in the image is the rasteriser's,
    and of single bits inside the page's videos the H.264 encoder's. Stages that were not run are left out, and named.
    Each file is written whole or not at all.

    Raises:
        NotADirectoryError: there is no such directory.
        rlft.errors.RlftError: a file or video is damaged, and named; or what draws is not installed, which leaves
            summary.json alone.
    """
    run = read_run(run_dir)
    summary = to_json(summarise(run))
    write_stage(run.directory, "summary", summary)

    require_extra("report", "matplotlib", "jinja2", "av")
    from rlft.report.figures import overview
    from rlft.report.page import render_page

    title = (summary["env_id"] or summary["name"]) + ("" if summary["seed"] is None else f", seed {summary['seed']}")
    png, html, page = overview(run, title), render_page(run, summary, title), run.directory / "report.html"
    write_atomically(run.directory / "report.png", png)
    write_text_atomically(page, html)
    for name in run.missing:
        log.info("%s is not in %s: the report leaves out what it would show", name, run.directory)
    return page
