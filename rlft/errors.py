"""Errors that a user can mend: shown as one message without a traceback, with their own exit status."""

import difflib
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path


class RlftError(Exception):
    """A failure whose message says what is wrong and what to do; the command line prints no traceback for it."""

    exit_code = 1


class ConfigError(RlftError):
    """Settings that cannot be used. Every problem is listed, not only the first.

    Attributes:
        problems: one line each: the field, its value, what is allowed, the remedy.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        count = len(self.problems)
        head = "the configuration cannot be used" if count == 1 else f"{count} problems in the configuration"
        super().__init__("\n".join([f"{head}:", *(f"  - {line}" for line in self.problems)]))


class DivergedError(RlftError):
    """Training has gone wrong in a way that going on would only make worse; the newest checkpoint stands."""

    exit_code = 3


def did_you_mean(given: object, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> str:
    """The end of a message: the known names that a misspelled one may have meant; empty where none is near."""
    near = difflib.get_close_matches(str(given), list(known), count, cutoff)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def command(*words: str) -> str:
    """What to type to start one of our commands with the Python of this process: ``.venv/bin/python -m rlft plan``."""
    python, here = Path(sys.executable), Path.cwd()
    return shlex.join([str(python.relative_to(here) if python.is_relative_to(here) else python), "-m", "rlft", *words])


def require_extra(extra: str, *packages: str) -> None:
    """Raise an RlftError for the first package of an extra of the distribution that is not installed; imports none."""
    for package in packages:
        if find_spec(package) is None:
            install = f"install it with: pip install 'rlft-flow[{extra}]'"
            raise RlftError(f"this needs {package}, which is not installed; {install}")
