"""The command ``rlft-plan`` from a checkout."""

import sys

from rlft import cli

if __name__ == "__main__":
    sys.exit(cli.plan())
