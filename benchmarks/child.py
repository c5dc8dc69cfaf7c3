"""One benchmark in a process of its own: its rows go to a file as they come."""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

from benchmarks.harness import Settings

ERROR_TAIL = 2000  # characters of a failed benchmark's output that are kept


class Outcome(TypedDict):
    """How one benchmark went: ``status`` is ok, failed or stopped; ``load`` is the machine's before it started."""

    status: str
    seconds: float
    budget_s: float
    error: str
    load: float


def run_rows(name: str, settings: Settings, rows: Path) -> None:
    """Run a benchmark in this process; append each row to ``rows`` as one line of JSON."""
    with rows.open("a", encoding="utf-8") as file:
        for row in importlib.import_module(f"benchmarks.{name}").run(settings):
            file.write(json.dumps(row.to_json(), allow_nan=False) + "\n")
            file.flush()


def run_apart(name: str, settings: Settings, out: Path, slowness: float = 1.0) -> tuple[list[dict[str, Any]], Outcome]:
    """Run a benchmark in a process of its own, and end it with all its children when its budget is spent.

    Args:
        name: a module of this package.
        settings: how thorough.
        out: the directory for its log.
        slowness: what its ``BUDGET_S`` is multiplied by; see :func:`benchmarks.harness.slowness`.

    Returns:
        the rows that it yielded, also where it failed, and how it went.
    """
    budget = slowness * importlib.import_module(f"benchmarks.{name}").BUDGET_S
    rows, log = out / f"{name}.rows", out / f"{name}.log"
    rows.unlink(missing_ok=True)
    words = [sys.executable, "-m", "benchmarks", name, "--rows", str(rows), *(["--quick"] if settings.quick else [])]
    load, started = os.getloadavg()[0], time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            words, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
        status = "failed"
        try:
            status = "ok" if process.wait(budget) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "stopped"
        finally:
            _end(process)
    error = "" if status == "ok" else log.read_text(encoding="utf-8", errors="replace").strip()[-ERROR_TAIL:]
    if status == "stopped":
        error = f"its {budget:.0f} s were over\n{error}".strip()
    found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()] if rows.is_file() else []
    rows.unlink(missing_ok=True)
    return found, Outcome(
        status=status, seconds=time.monotonic() - started, budget_s=budget, error=error, load=round(load, 2)
    )


def _end(process: subprocess.Popen) -> None:
    """End the process and what it started; simulators must not outlive it and slow the next benchmark."""
    with contextlib.suppress(ProcessLookupError):  # all gone already
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
