"""From a run directory to summary.json, report.png and report.html."""

import logging
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlft.errors import require_extra
from rlft.evaluate.result import EvalResult
from rlft.files import to_json, write_atomically, write_stage, write_text_atomically
from rlft.report.rundir import RunFiles, as_float, read_run

log = logging.getLogger(__name__)

COLLECT = ("episodes", "attempts", "success_rate", "seconds", "lengths", "longer_than_limit")
RESULT = ("success", "episodes", "successes", "ci95", "mean_steps", "max_episode_len", "success_at_end", "macro",
          "protocol_hash")  # fmt: skip


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


def summarise(run: RunFiles) -> dict[str, Any]:
    """``summary.json``: a run in plain numbers, from its files and nothing else. A stage that was not run is None."""
    rl, written = run.rl or {}, run.config  # as it was written then, by whatever version: any setting may be missing
    env = written["env"] if isinstance(written.get("env"), Mapping) else {}
    latest = run.after or run.before
    last = run.provenance[-1] if run.provenance else {}
    failures = {kind: len(seeds) for kind, seeds in (run.collect or {}).get("failures", {}).items()}  # not their seeds
    return {
        "name": run.directory.resolve().name,
        "env_id": latest.protocol["env_id"] if latest else env.get("id"),
        "seed": written.get("seed"),
        "cameras": [_pick(camera, "name", "height", "width") for camera in env.get("cameras") or []],
        "policy": _pick(run.sft or rl, "parameters") | _pick(rl, "trained_parameters"),
        "collect": _pick(run.collect, *COLLECT) | {"failures": failures} if run.collect is not None else None,
        "sft": _stage(run.sft, ("steps", "final_loss"), run.before),
        "rl": _stage(run.rl, ("iterations", "env_steps"), run.after),
        "evaluations": {label: _result(evaluation) for label, evaluation in run.evaluations.items()},
        "comparison": run.comparison,
        "suites": {label: suite.groups for label, suite in run.suites.items()},
        "throughput": _pick(rl, "env_steps_per_s", "samples_per_s_update"),
        "seconds": seconds(run),
        "versions": {"python": last.get("python"), **last.get("versions", {})} if last else None,
        "machine": _pick(last, "system", "cpu_cores", "memory_gib", "torch_threads") if last else None,
        "git_commit": last.get("git_commit"),
        # Ready for a shell; repeated ones once.
        "command": list(dict.fromkeys(shlex.join(map(str, line["command"])) for line in run.provenance)),
        "missing": run.missing,
    }


def seconds(run: RunFiles) -> dict[str, float]:
    """Wall time of every stage that reported one, and their total, seconds.

    The evaluations that PPO ran itself lie inside the RL stage, and are not counted twice.
    """
    stages = {"collect": run.collect, "sft": run.sft, "rl": run.rl}
    given = {name: as_float(stage.get("seconds")) for name, stage in stages.items() if stage}
    given |= {f"eval_{label}": e.seconds for label, e in run.evaluations.items() if label not in run.within_ppo}
    known = {name: value for name, value in given.items() if math.isfinite(value)}
    return known | {"total": sum(known.values())}


def _pick(source: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: source.get(key) for key in keys}


def _stage(source: Mapping[str, Any] | None, keys: tuple[str, ...], result: EvalResult | None) -> dict[str, Any] | None:
    if source is None and result is None:
        return None
    scores = _result(result) if result else dict.fromkeys(("success", "episodes", "ci95"))
    return _pick(source or {}, *keys) | scores


def _result(evaluation: EvalResult) -> dict[str, Any]:
    return {key: getattr(evaluation, key) for key in RESULT}
