"""``python -m benchmarks [NAMES] [--out DIR] [--quick]``: run the benchmarks, write ``bench.json``, print a table."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import run_apart, run_rows
from benchmarks.harness import Settings, slowness
from benchmarks.table import table
from rlft.files import to_json, write_text_atomically
from rlft.run.provenance import git_commit, machine_facts

NAMES = (
    "env_chunk_render",
    "env_vs_ideal",
    "env_step",
    "ppo_update",
    "update_memory",
    "sample_actions",
    "sft_step",
    "busy_machine",
    "rollout_overlap",
    "scaling",
)
OUT = Path("outputs") / "bench"


def main(argv: Sequence[str]) -> int:
    """Run what is asked for; 1 where a benchmark failed. A missed goal is a result, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all by default: {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, default=OUT, help="where bench.json goes")
    parser.add_argument("--quick", action="store_true", help="two pairs, smallest sizes: does it run?")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)  # the inside of one benchmark's own process
    args = parser.parse_args(argv)
    unknown = sorted(set(args.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    settings = Settings(quick=args.quick)
    if args.rows is not None:
        run_rows(args.names[0], settings, args.rows)
        return 0
    result = run_all(args.names or NAMES, settings, args.out, ["python", "-m", "benchmarks", *argv])
    sys.stdout.write(table(result) + "\n")
    return int(any(state["status"] != "ok" for state in result["benchmarks"].values()))


def run_all(names: Sequence[str], settings: Settings, out: Path, command: Sequence[str]) -> dict[str, Any]:
    """Run benchmarks one after another; ``bench.json`` is written whole after each.

    Args:
        names: modules of this package.
        settings: how thorough.
        out: the directory of ``bench.json`` and the logs.
        command: what the user typed, for the record.

    Returns:
        the content of ``bench.json``.
    """
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    slower = max(1.0, slowness()[0])  # so that a slow or busy machine is not cut short
    sys.stderr.write(f"this machine takes {slower:.1f} times as long as the reference: budgets are multiplied by it\n")
    result: dict[str, Any] = {
        "command": list(command),
        "git_commit": git_commit(Path(__file__)),
        "quick": settings.quick,
        "seconds": 0.0,
        "slowness": slower,
        "machine": machine_facts() | {"cpu": cpu_model()},
        "benchmarks": {},
        "rows": [],
    }
    for name in names:
        sys.stderr.write(f"{name} ...\n")
        rows, outcome = run_apart(name, settings, out, slower)
        result["rows"] += rows
        result["benchmarks"][name] = outcome
        result["seconds"] = time.monotonic() - started
        write_text_atomically(out / "bench.json", json.dumps(to_json(result), indent=1) + "\n")
    return result


def cpu_model() -> str:
    """The processor's name as the system gives it; empty where it gives none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
