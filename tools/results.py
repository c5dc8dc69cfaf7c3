"""docs/results.md from the result files under benchmarks/results/: no number in it is typed by hand.

``python -m tools.results`` writes the page, ``--check`` compares it, ``--add RUN NAME`` keeps a run's summary,
``--add-bench FILE NAME`` what the benchmarks wrote.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from benchmarks.table import RESULTS, goal, number, read_results, verdict
from rlft.errors import RlftError
from rlft.files import write_text_atomically
from tools.pages import write_or_check

TEMPLATE = Path(__file__).with_name("results.md.j2")
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
KEPT = ("env_id", "seed", "cameras", "policy", "collect", "sft", "rl", "evaluations", "comparison", "throughput",
        "seconds", "versions", "machine", "git_commit", "command")  # fmt: skip


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as text.

    Args:
        results: file stem -> the kept part of a run's summary, or what a benchmark wrote.
    """
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "goal": goal, "verdict": verdict, "plain": plain}
    kinds = {
        kind: {name: result for name, result in results.items() if name.startswith(prefix)}
        for kind, prefix in (("demos", "demo"), ("plates", "put_on_plate"), ("benches", "bench"))
    }
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    densities, planners = (results.get(name, {}) for name in ("densities", "planner_success"))
    return template.render(**kinds, densities=densities, planners=planners).rstrip() + "\n"


def plain(value: Any) -> str:
    """A fact of a benchmark as text: floats short, what holds others in brackets."""
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(plain, value)) + "]"
    return number(value) if isinstance(value, float) else str(value)


def keep(run: Path, name: str, directory: Path = RESULTS) -> None:
    """Copy the kept part of a run's summary into the results."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    text = json.dumps({key: summary[key] for key in KEPT}, indent=1)
    write_text_atomically(directory / f"{name}.json", text + "\n")


def keep_bench(path: Path, name: str, directory: Path = RESULTS) -> None:
    """Copy a ``bench.json`` into the results.

    Args:
        path: the file that the benchmarks wrote.
        name: its stem among the results; starts with ``bench``.
        directory: the results.

    Raises:
        RlftError: the name would not be found again, the run was a quick one, or a missed goal is not explained.
    """
    bench = json.loads(path.read_text(encoding="utf-8"))
    if not name.startswith("bench"):
        raise RlftError(f"{name!r}: kept benchmarks are called bench..., as bench_cpu")
    if bench["quick"]:
        raise RlftError(f"{path}: made with --quick; its numbers count for nothing. Run make bench")
    missed = [row for row in bench["rows"] if row["met"] is False and not row["explanation"]]
    if silent := "; ".join(f"{row['benchmark']}, {row['case']}" for row in missed):
        raise RlftError(f"{path}: goals missed without an explanation: {silent}")
    write_text_atomically(directory / f"{name}.json", json.dumps(bench, indent=1) + "\n")


def main(argv: Sequence[str]) -> int:
    """Write, check, or add; 1 where the page is out of date."""
    parser = argparse.ArgumentParser(prog="python -m tools.results", description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--add", nargs=2, metavar=("RUN", "NAME"))
    parser.add_argument("--add-bench", nargs=2, metavar=("FILE", "NAME"))
    args = parser.parse_args(argv)
    if args.add_bench:
        keep_bench(Path(args.add_bench[0]), args.add_bench[1])
    if args.add:
        keep(Path(args.add[0]), args.add[1])
    return write_or_check(PAGE, page(read_results()), check=args.check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
