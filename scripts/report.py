"""Summarise a run: summary.json, report.html and report.png."""

import sys

from rlft import cli
from rlft.config.schema import RunConfig


def run(cfg: RunConfig) -> None:
    """Run the stage with checked settings."""
    from rlft.run import stages  # heavy: only once the settings are known to be good

    stages.report(cfg)


if __name__ == "__main__":
    sys.exit(cli.main("report", run, __doc__))
