"""``python -m rlft`` lists the commands; ``python -m rlft train-rl ...`` runs one."""

import sys

from rlft import cli
from rlft.errors import did_you_mean


def main() -> int:
    """Run the command that the first word names."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in cli.COMMANDS:
        return vars(cli)[name.replace("-", "_")](words)
    if name not in ("-h", "--help"):
        near = did_you_mean(name, cli.COMMANDS)
        sys.stderr.write(f"{name!r}: no such command; one of {', '.join(cli.COMMANDS)}{near}\n")
        return 2
    lines = [f"  {name:<11} {text.partition('\n')[0]}\n" for name, text in cli.COMMANDS.items()]
    sys.stdout.write(f"usage: python -m rlft COMMAND ...; every command knows --help\n\n{''.join(lines)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
