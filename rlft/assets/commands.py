"""The command line of the assets."""

import argparse
import logging
import sys
from collections.abc import Sequence
from textwrap import indent

from rlft.assets.install import install
from rlft.assets.sources import DEFAULT, VARIABLE, AssetError, Source, Status, all_sources, assets_root, check
from rlft.errors import command

SHOWN = 20  # files of a kind that a check names
LONGEST_S = 3600.0  # that --timeout takes


def main(
    argv: Sequence[str], doc: str | None = None, sources: list[Source] | None = None, prog: str = "rlft-assets"
) -> int:
    """Run the command ``prog``, which says ``doc`` of itself, on the sources of the manifests by default.

    Returns:
        the exit status: 0; 1 where something is missing, differs or cannot be had; 2 where the licences were not
        accepted or an argument is wrong; 130 for Ctrl-C.
    """
    known = all_sources() if sources is None else sources
    args = (parser := _parser(doc, prog, [source.name for source in known])).parse_args(argv)
    if not 0.0 < args.timeout <= LONGEST_S:
        parser.error(f"argument --timeout: {args.timeout:g}: must be a number above 0, at most {LONGEST_S:g}")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return _run(args, known)
    except AssetError as error:
        sys.stderr.write(f"{prog}: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(f"{prog}: interrupted; the same command goes on from here\n")
        return 130


def _run(args: argparse.Namespace, sources: list[Source]) -> int:
    root = assets_root(args.root) or DEFAULT.expanduser()
    chosen = [*(["--root", args.root] if args.root else []), *(["--only", *args.only] if args.only else [])]
    accept = command("assets", "--accept-licences", *chosen)
    if root.exists() and not root.is_dir():
        raise AssetError(f"--root {root}: a file; give a directory", exit_code=2)
    sources = [source for source in sources if not args.only or source.name in args.only]
    if args.list:
        sys.stdout.writelines(f"{_line(source)}\n" for source in sources)
        return 0
    if not args.check:
        for s in sources:
            sys.stdout.write(f"{s.name}: {s.what}\n  from {s.place}\n{indent(s.licence, '  ')}\n\n")
        if not args.accept_licences:
            sys.stdout.write(f"Nothing was fetched. Accept these terms with:\n  {accept}\n")
            return 2
        install(sources, root, args.timeout)
    states = [check(source, root) for source in sources]
    whole = all(state.complete for state in states)
    mend = [] if whole else [f"To fetch what is missing or differs:\n  {accept}"]
    sys.stdout.write("\n".join([str(root), *(line for state in states for line in _table(state)), *mend, ""]))
    return 0 if whole else 1


def _parser(doc: str | None, prog: str, names: list[str]) -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=doc, allow_abbrev=False, formatter_class=style)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--list", action="store_true", help="say what there is to fetch, and stop")
    mode.add_argument("--check", action="store_true", help="say what is there, missing or different, and stop")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="these sources alone")
    where = f"where they lie (assets.root); else {VARIABLE}, else {DEFAULT}"
    parser.add_argument("--root", metavar="DIR", help=where)
    parser.add_argument("--accept-licences", action="store_true", help="accept the terms that are printed")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds without a byte (30)")
    return parser


def _table(state: Status) -> list[str]:
    """What a check found."""
    missing, differ = [entry.path for entry in state.missing], [entry.path for entry in state.differ]
    whole, total = len(state.whole), len(state.whole) + len(missing) + len(differ)
    counts = f"{whole} of {total} files are the original's; compared with {state.against}"
    lines = [f"{state.source.name}: {'whole' if state.complete else 'NOT WHOLE'}, {counts}"]
    for kind, names in (("missing", missing), ("differs", differ), ("not of the original", state.others)):
        lines += [f"  {kind}: {name}" for name in names[:SHOWN]]
        lines += [f"  {kind}: {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return lines


def _line(source: Source) -> str:
    sizes = [entry.size for entry in source.entries]
    unknown = f" and {sizes.count(None)} of unknown size" if None in sizes else ""
    count = f"{len(sizes)} files, {sum(filter(None, sizes)) / 1e6:.1f} MB{unknown}, into {source.folder}"
    return f"{source.name}: {source.what}\n  {count}\n  from {source.place}"
