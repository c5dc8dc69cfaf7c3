"""What the GPU benchmark is made of: checks that declare their rows, rows that are kept as they come, and time limits.

A check yields a :class:`Found` for each of its cases. One that fails, or that no time is left for, leaves a row for
every case that it owes, which says why: a table without a row would look as if nothing had been asked.
"""

import contextlib
import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.harness import Pairs
from benchmarks.table import number
from rlft.files import to_json

MEASURED, FAILED, NOT_RUN = "measured", "failed", "not run"
LEAST_S = 2.0  # a check is not begun with less
NOTE = 600  # characters of an error that a row keeps

# Published lines to beat: what others report of the same work, each with its machine.
LINES = {
    "update pi0": "44 samples/s, H100, H=50 K=4 3 cameras, prefix recomputed (RLinf 7d07a42, RoboTwin log)",
    "update pi05": "17.8 samples/s, H20, 25Main (ByteDance asynchronous PPO, 144.4 s on 4)",
    "env steps": "9.8 env-steps/s, 1 GPU, 16 envs, policy included (RLinf, 25Main); 58 to 115 on 4 H20",
    "sampler": "compiling takes 12 % off predict (ByteDance, 116.3 to 101.3 s)",
}


@dataclass(frozen=True)
class Found:
    """One number, as a check gives it.

    Attributes:
        case: which of the check's cases.
        value: the number; None where it could not be measured here, and ``note`` says why.
        unit: of the value; ``x`` for a ratio of two sides.
        note: both sides of a ratio, sizes, or the reason.
        line: a published number for the same work.
        verdict: ``pass`` or ``FAIL`` where the row is a claim; else empty.
        facts: further numbers.
    """

    case: str
    value: float | None
    unit: str
    note: str = ""
    line: str = ""
    verdict: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A line of the table; attributes as in :class:`Found`.

    Attributes:
        part: the process that measured it.
        name: the check.
        status: ``measured``, ``failed`` (the note is the error) or ``not run`` (the note is the reason).
        seconds: wall time since the check's row before, its preparation included.
    """

    part: str
    name: str
    case: str
    status: str
    value: float | None
    unit: str
    seconds: float
    note: str
    line: str = ""
    verdict: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values; :meth:`from_json` gives the same row back."""
        return to_json(asdict(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Row":
        """A row from :meth:`to_json`'s values."""
        return cls(**data)


@dataclass(frozen=True)
class Check:
    """A measurement.

    Attributes:
        name: of its rows.
        cases: every row that it owes.
        run: yields them; takes what its part shares (models, simulators).
        limit_s: it is interrupted beyond so many seconds.
    """

    name: str
    cases: tuple[str, ...]
    run: Callable[[Any], Iterator[Found]]
    limit_s: float = 60.0


class OutOfTimeError(BaseException):
    """The time of a check is over. No ``Exception``, so that no library's ``except Exception`` swallows it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt what runs inside after so many seconds; only in the main thread, elsewhere there is no limit.

    Raises:
        OutOfTimeError: inside, wherever Python is at that moment.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise OutOfTimeError(f"stopped after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)  # a limit around this one, pytest's for instance, goes on
        signal.signal(signal.SIGALRM, before)


def run_checks(
    part: str,
    checks: Sequence[Check],
    shared: Any,
    sink: Callable[[Row], None],
    *,
    budget_s: float,
    patience: float = 1.0,
) -> None:
    """Run checks one after another; each row goes out as soon as it is there.

    Args:
        part: for the rows.
        checks: in the order of what they are worth: the last ones are left out when time runs short.
        shared: given to every check.
        sink: takes the rows.
        budget_s: for all checks together.
        patience: factor on every check's own limit: how fast a machine is says nothing about a dry run.
    """
    deadline = time.monotonic() + budget_s
    for check in checks:
        owed, began = list(check.cases), time.monotonic()
        status, reason, left = NOT_RUN, f"the budget of {budget_s:.0f} s is spent", deadline - began
        if left >= LEAST_S:
            try:
                with time_limit(min(check.limit_s * patience, left)):
                    for found in check.run(shared):
                        now = time.monotonic()
                        owed.remove(found.case)
                        sink(_row(part, check.name, found, now - began))
                        began = now
                status, reason = FAILED, "the check ended without it"
            except OutOfTimeError as error:
                status, reason = FAILED, str(error)
            except Exception as error:  # whatever fails is one row's business
                status, reason = FAILED, f"{type(error).__name__}: {error}"
        for case in owed:
            sink(
                Row(part, check.name, case, status, None, "", time.monotonic() - began, " ".join(reason.split())[:NOTE])
            )
        give_memory_back()


def _row(part: str, name: str, found: Found, seconds: float) -> Row:
    status = NOT_RUN if found.value is None else MEASURED
    rest = (" ".join(found.note.split())[:NOTE], found.line, found.verdict, dict(found.facts))
    return Row(part, name, found.case, status, found.value, found.unit, seconds, *rest)


def give_memory_back() -> None:
    """Free what the last check left: a failed one's traceback keeps its tensors alive until then."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def ratio(case: str, pairs: Pairs, unit: str, theirs: str, **more: Any) -> Found:
    """A comparison of two sides that were measured in turns.

    Args:
        case: see :class:`Found`.
        pairs: rates of both.
        unit: of the rates.
        theirs: what the other side is.
        more: ``line``, ``facts``, and ``note``, which is put behind the rates.
    """
    row = pairs.row("gpu", case, unit=unit, baseline=theirs)
    note = f"ours {number(row.ours)}, {theirs} {number(row.theirs)} {unit}"
    note += f" [{number(row.low)}, {number(row.high)}]"
    if more.get("note"):
        note += f"; {more.pop('note')}"
    facts = {"ours": row.ours, "theirs": row.theirs, "unit": unit, "low": row.low, "high": row.high}
    return Found(case, row.value, "x", note, facts=facts | dict(more.pop("facts", {})), **more)


def claim(case: str, value: float, limit: float, unit: str, note: str, *, above: bool = False) -> Found:
    """A number that has to stay within (or, ``above``, to go beyond) a limit."""
    holds = value > limit if above else value <= limit
    bound = f"{'more than' if above else 'at most'} {limit:g}"
    return Found(case, value, unit, f"{bound}; {note}", verdict="pass" if holds else "FAIL")


def size(count: float) -> str:
    """Bytes for a person to read."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


WIDTHS = (12, 20, 34, 12, 8, 6)
HEAD = ("part", "check", "case", "value", "", "s")


def line(cells: Sequence[str], note: str) -> str:
    """One line of the table: cells in fixed columns, since later rows are not known yet."""
    return " ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS)) + " " + note


def spell(row: Row) -> str:
    """A row for a person to read."""
    value = row.status.upper() if row.value is None else f"{number(row.value)} {row.unit}"
    note = row.note + (f" | to beat: {row.line}" if row.line else "")
    return line((row.part, row.name, row.case, value, row.verdict, f"{row.seconds:.1f}"), note).rstrip()
