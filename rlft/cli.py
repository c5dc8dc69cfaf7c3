"""The command line that every script shares. Help and configuration errors import nothing heavy."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from rlft.config.schema import RunConfig
from rlft.errors import RlftError
from rlft.waiting import choose_waiting

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
CLEAR_LINE = "\r\x1b[K"  # a live progress line may stand where the next log line goes


def main(entry: str, run: Callable[[RunConfig], None], doc: str | None, argv: Sequence[str] | None = None) -> int:
    """Parse, load and check the settings, then run the stage.

    Args:
        entry: the entry point; also the name of its file in configs/.
        run: the stage; it may import what it needs, for the settings are known to be good by then.
        doc: what the script does (its docstring).
        argv: arguments; those of the process by default.

    Returns:
        the exit status: 0; 2 for bad settings; otherwise what the error says (:class:`rlft.errors.RlftError`); 130
        for Ctrl-C.
        SIGTERM ends the process with 143 after every ``finally`` has run.
    """
    args = _parser(entry, doc).parse_intermixed_args(argv)
    logging.basicConfig(level=logging.INFO, format=_log_format(), datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        if args.help:
            _write(_help(entry, doc, args.config_dir))
            return 0
        from rlft.config.load import dump, load

        cfg = load(entry, args.overrides, args.config_dir, args.config_name)
        if args.cfg:
            _write(dump(cfg))
            return 0
        signal.signal(signal.SIGTERM, _terminate)
        choose_waiting(cfg)
        run(cfg)
    except RlftError as error:
        sys.stderr.write(f"{entry}: {error}\n")
        if error.exit_code == 2:
            sys.stderr.write("All settings: --help, or docs/configuration.md.\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(f"{entry}: interrupted\n")
        return 130
    return 0


def _parser(entry: str, doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{entry}.py", description=doc, add_help=False, allow_abbrev=False, usage=f"{entry}.py {USAGE}"
    )
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--config-dir", type=Path)
    parser.add_argument("--config-name")
    parser.add_argument("--cfg", action="store_true")
    parser.add_argument("overrides", nargs="*")
    return parser


USAGE = "[--config-dir DIR] [--config-name NAME] [--cfg] [--help] [group=choice ...] [key=value ...]"


def _help(entry: str, doc: str | None, config_dir: Path | None) -> str:
    from rlft.config.compose import group_choices
    from rlft.config.fields import settings_lines

    groups = [f"  {group}={'|'.join(choices)}" for group, choices in group_choices(config_dir).items()]
    return "\n".join(
        [
            f"usage: {entry}.py {USAGE}",
            "",
            (doc or "").strip(),
            "",
            "options:",
            "  --config-dir DIR    a directory of your own, searched before configs/",
            f"  --config-name NAME  a file there or in configs/ instead of {entry}.yaml",
            "  --cfg               print the resolved settings and stop",
            "",
            "groups:",
            *groups,
            "",
            "settings (key = the schema's default: meaning; the files of the groups may say otherwise, see --cfg):",
            *settings_lines(),
            "",
        ]
    )


def _log_format() -> str:
    return CLEAR_LINE + LOG_FORMAT if sys.stderr.isatty() else LOG_FORMAT


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)
