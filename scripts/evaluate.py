"""Measure closed-loop success on fixed seeds that training never sees."""

import sys

from rlft import cli
from rlft.config.schema import RunConfig


def run(cfg: RunConfig) -> None:
    """Run the stage with checked settings."""
    from rlft.run import stages  # heavy: only once the settings are known to be good

    stages.evaluate(cfg)


if __name__ == "__main__":
    sys.exit(cli.main("evaluate", run, __doc__))
