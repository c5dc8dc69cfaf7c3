"""Fine-tune a flow policy by PPO in simulation."""

import sys

from rlft import cli
from rlft.config.schema import RunConfig


def run(cfg: RunConfig) -> None:
    """Run the stage with checked settings."""
    from rlft.run import stages  # heavy: only once the settings are known to be good

    stages.train_rl(cfg)


if __name__ == "__main__":
    sys.exit(cli.main("train_rl", run, __doc__))
