"""The command line of the assets."""

from __future__ import annotations

import argparse
import logging
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent

from rlft.assets.check import Status, check
from rlft.assets.errors import AssetError
from rlft.assets.fetch import Patience
from rlft.assets.install import install
from rlft.assets.root import COMMAND, VARIABLE, target_root
from rlft.assets.sources import Source, all_sources, select

SHOWN = 20  # files of a kind that a check names
LONGEST_S = 3600.0  # that --timeout takes


def main(argv: Sequence[str], doc: str | None = None, sources: list[Source] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments.
        doc: what the script says of itself.
        sources: those of the manifests by default.

    Returns:
        the exit status: 0; 1 where something is missing, differs or cannot be had; 2 where the licences were not
        accepted or an argument is wrong; 130 for Ctrl-C.
    """
    args = _parser(doc).parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    root = target_root(args.root)
    if root.exists() and not root.is_dir():
        sys.stderr.write(f"download_assets: --root {root}: a file; give a directory\n")
        return 2
    command = shlex.join([*COMMAND.split(), *(["--root", args.root] if args.root else []), *_only(args.only)])
    try:
        chosen = select(all_sources() if sources is None else sources, args.only)
        if args.list:
            return _write("\n".join(_line(source) for source in chosen))
        if not args.check:
            if not args.accept_licences:
                _write(f"{terms(chosen)}\n\nNothing was fetched. Accept these terms with:\n  {command}")
                return 2
            _write(terms(chosen))
            install(chosen, root, Patience(timeout_s=args.timeout))
        states = [check(source, root) for source in chosen]
        _write(table(states, root, command))
    except AssetError as error:
        sys.stderr.write(f"download_assets: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("download_assets: interrupted; the same command goes on from here\n")
        return 130
    return 0 if all(state.complete for state in states) else 1


def _parser(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="download_assets.py",
        description=doc,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--list", action="store_true", help="say what there is to fetch, and stop")
    mode.add_argument("--check", action="store_true", help="say what is there, missing or different, and stop")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these sources alone")
    parser.add_argument(
        "--root", metavar="DIR", help=f"where they lie (assets.root); else {VARIABLE}, else ~/.cache/rlft/assets"
    )
    parser.add_argument("--accept-licences", action="store_true", help="accept the terms that are printed")
    parser.add_argument("--timeout", type=_seconds, default=30.0, metavar="S", help="seconds without a byte (30)")
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text}: must be a number above 0, at most {LONGEST_S:g}")
    return value


def terms(sources: list[Source]) -> str:
    """The licences, for a person to read."""
    return "\n\n".join(
        f"{source.name}: {source.what}\n  from {source.archive.url if source.archive else source.origin}\n"
        f"{indent(source.licence, '  ')}"
        for source in sources
    )


def table(states: list[Status], root: Path, command: str) -> str:
    """What a check found, and the command that mends it."""
    lines = [f"{root}"]
    for state in states:
        total = len(state.whole) + len(state.missing) + len(state.differ)
        verdict = "whole" if state.complete else "NOT WHOLE"
        counts = f"{len(state.whole)} of {total} files are the original's"
        lines.append(f"{state.source.name}: {verdict}, {counts}; compared with {state.against}")
        lines += _named("missing", [entry.path for entry in state.missing])
        lines += _named("differs", [entry.path for entry in state.differ])
        lines += _named("not of the original", list(state.others))
    if not all(state.complete for state in states):
        lines.append(f"To fetch what is missing or differs:\n  {command}")
    return "\n".join(lines)


def _only(names: list[str] | None) -> list[str]:
    return ["--only", *names] if names else []


def _named(kind: str, names: list[str]) -> list[str]:
    more = [f"  {kind}: {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return [*(f"  {kind}: {name}" for name in names[:SHOWN]), *more]


def _line(source: Source) -> str:
    unknown = sum(entry.size is None for entry in source.entries)
    rest = f" and {unknown} of unknown size" if unknown else ""
    return (
        f"{source.name}: {source.what}\n  {len(source.entries)} files, {source.known_bytes / 1e6:.1f} MB{rest}, into "
        f"{source.folder}\n  from {source.archive.url if source.archive else source.origin}"
    )


def _write(text: str) -> int:
    sys.stdout.write(f"{text}\n")
    return 0
