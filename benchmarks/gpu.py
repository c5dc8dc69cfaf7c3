"""``python -m benchmarks.gpu [--dry] [--out DIR] [--budget-s N]``: what only a GPU can tell, in under 8 minutes.

One line a row, printed as it comes: a run that is cut off leaves its table. The same rows go to
``benchmarks/results/gpu_<device>.json``, which is written anew after each. ``--dry`` runs them in small on the CPU, to
see that they run; its file goes elsewhere. See docs/three_gpus.md.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_env import DRY, REAL, Scale
from benchmarks.gpu_rows import FAILED, HEAD, Check, Row, line, run_checks, spell
from rlft.files import to_json, write_text_atomically
from rlft.run.provenance import git_commit, machine_facts

RESULTS = Path(__file__).resolve().parent / "results"
BUDGET_S = 480.0
MARGIN_S = 5.0  # of a part's time, for ending it
ERROR_TAIL = 400  # characters of a part's output, where it ended early


@dataclass(frozen=True)
class Part:
    """Checks that share a process: models and simulators stay, and a crash costs the others nothing.

    Attributes:
        share: of the budget; what a part leaves over goes to those behind it.
        checks: makes them; imports what they need.
        shared: makes what is given to each.
    """

    share: float
    checks: Callable[[Scale], list[Check]]
    shared: Callable[[Scale], Any]


def _model(name: str) -> Part:
    def checks(scale: Scale) -> list[Check]:
        from benchmarks import gpu_learn

        return gpu_learn.checks(scale, name)

    def shared(scale: Scale) -> Any:
        from benchmarks.gpu_model import Models

        return Models(scale, name)

    return Part({"pi0": 200.0, "pi05": 80.0}[name], checks, shared)


def _compiled(scale: Scale) -> list[Check]:
    from benchmarks import gpu_learn

    return gpu_learn.compile_checks(scale)


def _simulated(scale: Scale) -> list[Check]:
    from benchmarks import gpu_sim

    return gpu_sim.checks(scale)


def _overflowing(scale: Scale) -> list[Check]:
    from benchmarks import gpu_sim

    return gpu_sim.overflow_checks()


def _simulator(scale: Scale) -> Any:
    from benchmarks.gpu_simulator import Sim

    return Sim(scale)


PARTS = {  # the most valuable first; what may hang or break a process last
    "pi0": _model("pi0"),
    "pi05": _model("pi05"),
    "simulation": Part(100.0, _simulated, _simulator),
    "overflow": Part(30.0, _overflowing, _simulator),
    "compile": Part(70.0, _compiled, _model("pi0").shared),
}


class Table:
    """The rows so far: printed, and written after each.

    Args:
        out: directory of the file.
        record: what the file says beside the rows; ``device`` names it.
    """

    def __init__(self, out: Path, record: dict[str, Any]) -> None:
        self.out, self.record, self.rows = out, record, list[Row]()
        self._started = time.monotonic()
        sys.stdout.write(line(HEAD, "note") + "\n")
        sys.stdout.flush()

    @property
    def path(self) -> Path:
        """Where the file is."""
        words = re.sub(r"[^a-z0-9]+", "_", str(self.record["device"]["name"]).lower()).strip("_")
        return self.out / f"gpu_{words}.json"

    def add(self, row: Row) -> None:
        """One more row."""
        self.rows.append(row)
        sys.stdout.write(spell(row) + "\n")
        sys.stdout.flush()
        result = {**self.record, "seconds": time.monotonic() - self._started, "rows": [r.to_json() for r in self.rows]}
        write_text_atomically(self.path, json.dumps(to_json(result), indent=1, allow_nan=False) + "\n")

    def close_part(self, name: str, owed: Sequence[tuple[str, str]], reason: str) -> None:
        """Rows for what a part should have given and did not."""
        given = {(row.name, row.case) for row in self.rows if row.part == name}
        for check, case in owed:
            if (check, case) not in given:
                self.add(Row(name, check, case, FAILED, None, "", 0.0, reason))


def main(argv: Sequence[str]) -> int:
    """Run everything; 1 where a row failed. A claim that does not hold is a result, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all by default: {', '.join(PARTS)}")
    parser.add_argument("--dry", action="store_true", help="in small, on the CPU: does it run?")
    parser.add_argument("--out", type=Path, help="benchmarks/results by default; with --dry a temporary directory")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="seconds for everything")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)  # the inside of one part's own process
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.parts) - set(PARTS)):
        parser.error(f"no part is called {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    scale, names = DRY if args.dry else REAL, args.parts or list(PARTS)
    if args.rows is not None:
        inside(names[0], scale, args.rows, args.budget_s)
        return 0
    out = args.out or (Path(tempfile.mkdtemp(prefix="gpu_dry_")) if args.dry else RESULTS)
    if args.dry and out.resolve() == RESULTS:
        parser.error("--dry measures nothing: its numbers do not belong in benchmarks/results")
    if not args.dry and not _has_gpu():
        parser.error("no CUDA device is visible here; --dry runs the same rows in small on the CPU")
    table = Table(out, record(scale, argv, args.budget_s))
    run_parts(names, scale, table, args.budget_s)
    failed = sum(row.status == FAILED for row in table.rows)
    sys.stdout.write(f"{len(table.rows)} rows, {failed} failed; {table.path}\n")
    return int(failed > 0)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _one_thread() -> None:
    """Small matrices gain nothing from a second thread, and lose much where other work wants its core."""
    import torch

    torch.set_num_threads(1)


def record(scale: Scale, argv: Sequence[str], budget_s: float) -> dict[str, Any]:
    """What the file says beside the rows; the device's name comes with the first part's process."""
    return {
        "command": ["python", "-m", "benchmarks.gpu", *argv],
        "git_commit": git_commit(Path(__file__)),
        "dry": scale.dry,
        "budget_s": budget_s,
        "machine": machine_facts(),
        "device": {"name": "dry" if scale.dry else "unknown"},
        "scale": asdict(scale),
    }


def run_parts(names: Sequence[str], scale: Scale, table: Table, budget_s: float) -> None:
    """Every part within its share of the time that is left: each in its own process, a dry run's in this one."""
    deadline = time.monotonic() + budget_s
    for i, name in enumerate(names):
        share = PARTS[name].share / sum(PARTS[later].share for later in names[i:])
        seconds = share * (deadline - time.monotonic())
        if scale.dry:
            _one_thread()
            run_checks(
                name, PARTS[name].checks(scale), PARTS[name].shared(scale), table.add, budget_s=seconds, patience=10.0
            )
        else:
            run_apart(name, scale, table, seconds)


def inside(name: str, scale: Scale, rows: Path, budget_s: float) -> None:
    """A part in this process: what the device is, then its rows, to a file, one line of JSON each."""
    deadline = time.monotonic() + budget_s - MARGIN_S
    with rows.open("a", encoding="utf-8") as file:

        def put(data: dict[str, Any]) -> None:
            file.write(json.dumps(to_json(data), allow_nan=False) + "\n")
            file.flush()

        checks, shared = PARTS[name].checks(scale), PARTS[name].shared(scale)
        owed = [(check.name, case) for check in checks for case in check.cases]
        put({"device": device_facts(scale), "owed": owed})
        run_checks(name, checks, shared, lambda row: put(row.to_json()), budget_s=deadline - time.monotonic())


def device_facts(scale: Scale) -> dict[str, Any]:
    """The GPU's name and memory, and the driver's side of torch."""
    import torch

    if not scale.on_gpu:
        return {"name": "dry"}
    found = torch.cuda.get_device_properties(scale.device)
    return {
        "name": found.name,
        "memory_bytes": found.total_memory,
        "capability": f"{found.major}.{found.minor}",
        "cuda": torch.version.cuda,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def run_apart(name: str, scale: Scale, table: Table, seconds: float) -> None:
    """A part in a process of its own, ended with all its children when its time is over."""
    with tempfile.TemporaryDirectory() as folder:
        rows, log = Path(folder) / "rows", Path(folder) / "log"
        rows.touch()
        words = [sys.executable, "-m", "benchmarks.gpu", name, "--rows", str(rows), "--budget-s", f"{seconds:.1f}"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*words, *(["--dry"] if scale.dry else [])],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            reason, owed = _follow(process, rows, table, seconds)
        said = log.read_text(encoding="utf-8", errors="replace").strip()[-ERROR_TAIL:]
        table.close_part(name, owed, " ".join(f"{reason}; {said}".split()))


def _follow(
    process: subprocess.Popen, rows: Path, table: Table, seconds: float
) -> tuple[str, Sequence[tuple[str, str]]]:
    """Hand on a process's rows until it ends or its time is over; how it went, and what it owes."""
    deadline, done = time.monotonic() + seconds, 0
    owed: Sequence[tuple[str, str]] = [("all", "before the first row")]
    try:
        while True:
            ended = process.poll()
            lines = rows.read_text(encoding="utf-8").split("\n")[:-1]  # a line that is being written is not taken
            for text in lines[done:]:
                data = json.loads(text)
                if "device" in data:
                    table.record["device"], owed = data["device"], data["owed"]
                else:
                    table.add(Row.from_json(data))
            done = len(lines)
            if ended is not None:
                return f"the part's process ended with status {ended}", owed
            if time.monotonic() > deadline:
                return f"the part's {seconds:.0f} s were over", owed
            time.sleep(0.2)
    finally:
        with contextlib.suppress(ProcessLookupError):  # all gone already
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
