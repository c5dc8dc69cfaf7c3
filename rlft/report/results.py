"""docs/results.md from the result files under benchmarks/results/: no number in it is typed by hand.

``python -m rlft.report.results`` writes the page, ``--check`` compares it, ``--add RUN NAME`` keeps a run's summary.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlft.metrics import write_text_atomically

ROOT = Path(__file__).resolve().parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md"
KEPT = (
    "env_id",
    "seed",
    "cameras",
    "policy",
    "collect",
    "sft",
    "rl",
    "evaluations",
    "comparison",
    "throughput",
    "seconds",
    "versions",
    "machine",
    "git_commit",
    "command",
)

HEAD = """# Results

Generated from `benchmarks/results/*.json` by `python -m rlft.report.results`; each file is the `summary.json` of one run.

## The demo: PPO on a heavy cube after a warm-up on a light one

`make demo` on the CPU. The task is PushCube-v1, seen through one rendered camera. Demonstrations and warm-up know the
cube as published (64 g). PPO and both evaluations use `task=push_heavy_cube` (13 kg). Before and after share the
evaluation seeds, the time limit and the number of denoise steps; training never sees these seeds, and the weights
evaluated after PPO are those of its last iteration. Brackets are 95 % Wilson intervals; p is the exact McNemar test on
the paired episodes.
"""


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as text.

    Args:
        results: file stem -> the kept part of a run's summary.
    """
    demos = {name: result for name, result in results.items() if name.startswith("demo")}
    lines = [HEAD, "| run | light cube, warm-up | heavy cube, warm-up | heavy cube, after PPO | gain | p | intervals |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    lines += [_success_row(name, result) for name, result in demos.items()]
    lines += ["", "A limit twice as long changes nothing about what the warm-up lacks:", ""]
    lines += [
        "| run | warm-up, limit | warm-up, twice the limit | after PPO, twice the limit |",
        "| --- | --- | --- | --- |",
    ]
    lines += [_limit_row(name, result) for name, result in demos.items()]
    lines += [
        "",
        "## Cost",
        "",
        "| run | demonstrations | PPO iterations | environment steps | steps/s | minutes in all |",
    ]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    lines += [_cost_row(name, result) for name, result in demos.items()]
    lines += ["", "## Machines and commands", ""]
    for name, result in demos.items():
        versions = ", ".join(f"{k} {v}" for k, v in sorted((result.get("versions") or {}).items()))
        machine = ", ".join(f"{k} {v}" for k, v in (result.get("machine") or {}).items())
        lines += [f"**{name}**: {machine}; {versions}", "", "```", *(result.get("command") or []), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _rate(result: Mapping[str, Any], label: str) -> str:
    found = (result.get("evaluations") or {}).get(label)
    if found is None:
        return "not run"
    low, high = found["ci95"]
    return f"{100 * found['success']:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {found['episodes']}"


def _success_row(name: str, result: Mapping[str, Any]) -> str:
    compared = result["comparison"]
    apart = "apart" if compared["intervals_apart"] else "overlap"
    cells = [name, *(_rate(result, label) for label in ("sft_source", "sft", "rl"))]
    return _row([*cells, f"{compared['gain_points']:+.1f} points", f"{compared['p_value']:.1e}", apart])


def _limit_row(name: str, result: Mapping[str, Any]) -> str:
    return _row([name, *(_rate(result, label) for label in ("sft", "sft_long", "rl_long"))])


def _cost_row(name: str, result: Mapping[str, Any]) -> str:
    rl, speed = result["rl"], result["throughput"]["env_steps_per_s"]
    minutes = result["seconds"]["total"] / 60
    cells = [name, result["collect"]["episodes"], rl["iterations"], rl["env_steps"], f"{speed:.0f}", f"{minutes:.1f}"]
    return _row([str(cell) for cell in cells])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def read_results(directory: Path = RESULTS) -> dict[str, Mapping[str, Any]]:
    """All kept results, by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))}


def keep(run: Path, name: str, directory: Path = RESULTS) -> Path:
    """Copy the kept part of a run's summary into the results."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    write_text_atomically(path, json.dumps({key: summary[key] for key in KEPT}, indent=1) + "\n")
    return path


def main(argv: Sequence[str]) -> int:
    """Write, check, or add; 1 where the page is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--add", nargs=2, metavar=("RUN", "NAME"))
    args = parser.parse_args(argv)
    if args.add:
        keep(Path(args.add[0]), args.add[1])
    text = page(read_results())
    if args.check:
        current = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
        if current != text:
            sys.stderr.write(f"{PAGE.name} is out of date; run python -m rlft.report.results\n")
        return int(current != text)
    write_text_atomically(PAGE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
