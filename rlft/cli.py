"""The commands, and the command line that they share. Help and configuration errors import nothing heavy."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from rlft.config.schema import RunConfig
from rlft.errors import ConfigError, RlftError, did_you_mean
from rlft.waiting import choose_waiting

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
CLEAR_LINE = "\r\x1b[K"  # a live progress line may stand where the next log line goes
USAGE = "[--config-dir DIR] [--config-name NAME] [--cfg] [-m] [--help] [group=choice ...] [key=value ...]"
OPTIONS = ("--config-dir", "--config-name", "--cfg", "--multirun", "--help")
COMMANDS = {
    "collect": "Collect demonstrations by motion planning and write them as a LeRobotDataset.",
    "train-sft": "Train a policy on demonstrations by supervised flow matching.",
    "train-rl": "Fine-tune a flow policy by reinforcement learning in simulation.",
    "evaluate": "Measure closed-loop success on fixed seeds that training never sees.",
    "report": "Summarise a run: summary.json, report.html and report.png.",
    "plan": """Say what a run takes before it starts: bytes, FLOPs, and the settings that would make it fit.

Takes the settings of train-rl and train-sft. More options:
  --stage rl|sft|all  what is planned; both by default
  --gpu-gib N         memory of every GPU, GiB; measured where the GPU is in this machine
  --host-gib N        memory of the host, GiB; measured where it is not given
  --sim-gib N         what simulation on a GPU takes there, GiB; else it is left out
  --frames N          frames of the demonstrations; else as many as they could have""",
    "assets": """Fetch the robots, objects and scenes that are not part of this project, from their public places.

Every file is checked against a digest that is kept here. What is whole already stays; what was interrupted goes on.
Nothing is ever asked: the terms are printed, and --accept-licences accepts them.""",
    "completion": """Print a script that completes settings in bash or zsh: eval "$(rlft-completion bash)".""",
}
"""What ``python -m rlft NAME`` and the installed ``rlft-NAME`` run: the functions of these names, with - as _."""


def _stage(command: str, argv: Sequence[str] | None = None) -> int:
    entry = "collect_demos" if command == "collect" else command.replace("-", "_")

    def run(cfg: RunConfig) -> None:
        from rlft.run import stages  # heavy: only once the settings are known to be good

        vars(stages)[entry](cfg)

    return main(entry, run, COMMANDS[command], argv)


collect = partial(_stage, "collect")
train_sft = partial(_stage, "train-sft")
train_rl = partial(_stage, "train-rl")
evaluate = partial(_stage, "evaluate")
report = partial(_stage, "report")


def plan(argv: Sequence[str] | None = None) -> int:
    """The command ``plan``, which has options of its own."""
    words = sys.argv[1:] if argv is None else list(argv)
    options, rest = plan_options(words)

    def run(cfg: RunConfig) -> None:
        from rlft.plan.page import plan_page  # heavy: it builds the network

        _write(plan_page(cfg, options))

    return main("plan", run, COMMANDS["plan"], rest, own=[word for word in words if word not in rest])


def plan_options(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take planning's own words out of a command line; the rest is what every command takes."""
    parser = argparse.ArgumentParser(prog=called(), add_help=False, allow_abbrev=False)
    parser.add_argument("--stage", choices=("rl", "sft", "all"), default="all")
    for name in ("--gpu-gib", "--host-gib", "--sim-gib"):
        parser.add_argument(name, type=float)
    parser.add_argument("--frames", type=int)
    return parser.parse_known_args(argv)


def assets(argv: Sequence[str] | None = None) -> int:
    """The command ``assets``, which has no settings."""
    from rlft.assets.commands import main as assets_main

    return assets_main(sys.argv[1:] if argv is None else argv, COMMANDS["assets"], prog=called())


def completion(argv: Sequence[str] | None = None) -> int:
    """The command ``completion``."""
    from rlft.completion import SHELLS, completion_script

    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) != 1 or words[0] not in SHELLS:
        sys.stderr.write(f"usage: {called()} {'|'.join(SHELLS)}\n{COMMANDS['completion']}\n")
        return 2
    _write(completion_script(words[0], [name for name in COMMANDS if name not in ("assets", "completion")], OPTIONS))
    return 0


def main(
    entry: str,
    run: Callable[[RunConfig], None],
    doc: str | None,
    argv: Sequence[str] | None = None,
    own: Sequence[str] = (),
) -> int:
    """Parse, load and check the settings, then run the stage, which may import what it needs by then.

    ``entry`` is the name of its file in configs/, ``doc`` what the command does; ``own`` are further arguments, which
    the command has taken for itself.

    Returns:
        the exit status: 0; 2 for bad settings; otherwise what the error says (:class:`rlft.errors.RlftError`); 130
        for Ctrl-C; the worst of a sweep's members. SIGTERM ends the process with 143 after every ``finally`` has run.
    """
    form = CLEAR_LINE * sys.stderr.isatty() + LOG_FORMAT
    logging.basicConfig(level=logging.INFO, format=form, datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        args = _parser().parse_intermixed_args(our_spelling(sys.argv[1:] if argv is None else argv))
        if args.help:
            _write(_help(entry, doc, args.config_dir))
            return 0
        from rlft.config.load import dump, load

        signal.signal(signal.SIGTERM, _terminate)
        if args.multirun:
            from rlft.sweep import sweep

            return sweep(entry, args, own)
        cfg = load(entry, args.overrides, args.config_dir, args.config_name)
        if args.cfg:
            _write(dump(cfg))
            return 0
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


def called() -> str:
    """The name that this process was called by, as a user types it."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return " ".join(["python -m rlft", *sys.argv[1:2]])
    return sys.argv[0] if path.suffix == ".py" else path.name


def our_spelling(argv: Sequence[str]) -> list[str]:
    """Command lines as other tools spell them: ``--cfg job``, ``--seed=1``, ``--train.lr 1e-4``.

    Raises:
        ConfigError: a word that looks like an option and is none.
    """
    words, out = list(argv), []
    while words:
        word = words.pop(0)
        name, given, value = word.partition("=")
        if name in ("--cfg", "-c"):
            if not given and words and words[0] in ("job", "hydra", "all"):
                value = words.pop(0)
            if value not in ("", "job"):
                raise ConfigError(f"{name} {value}: only the settings of the run can be shown; write --cfg")
            out.append("--cfg")
        elif not name.startswith("--") or name in OPTIONS:
            out.append(word)
        elif near := did_you_mean(name, OPTIONS, cutoff=0.8):
            raise ConfigError(f"{word}: no such option{near}")
        elif given or (words and not words[0].startswith("--") and "=" not in words[0]):
            out.append(f"{name[2:]}={value if given else words.pop(0)}")
        else:
            raise ConfigError(f"{word}: no such option; a setting is written {name[2:]}=VALUE, for instance seed=1")
    return out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage=f"{called()} {USAGE}")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-cd", "--config-dir", type=Path)
    parser.add_argument("-cn", "--config-name")
    parser.add_argument("--cfg", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("overrides", nargs="*")
    return parser


def _help(entry: str, doc: str | None, config_dir: Path | None) -> str:
    from rlft.config.fields import settings_lines
    from rlft.config.groups import group_choices

    groups = "\n".join(f"  {group}={'|'.join(choices)}" for group, choices in group_choices(config_dir).items())
    settings = "\n".join(settings_lines())
    return f"""\
usage: {called()} {USAGE}

{(doc or "").strip()}

options:
  --config-dir, -cd DIR    a directory of your own, searched before configs/
  --config-name, -cn NAME  a file there or in configs/ instead of {entry}.yaml
  --cfg                    print the resolved settings and stop
  --multirun, -m           run every combination of lists like seed=0,1,2, one after the other, into one table

groups:
{groups}

settings (key = the schema's default: meaning; the files of the groups may say otherwise, see --cfg):
{settings}
"""


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)
