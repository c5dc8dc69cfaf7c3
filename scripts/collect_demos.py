"""Collect demonstrations by motion planning and write them as a LeRobotDataset."""

import sys

from rlft import cli
from rlft.config.schema import RunConfig


def run(cfg: RunConfig) -> None:
    """Run the stage with checked settings."""
    from rlft.run import stages  # heavy: only once the settings are known to be good

    stages.collect_demos(cfg)


if __name__ == "__main__":
    sys.exit(cli.main("collect_demos", run, __doc__))
