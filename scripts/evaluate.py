"""The command ``rlft-evaluate`` from a checkout."""

import sys

from rlft import cli

if __name__ == "__main__":
    sys.exit(cli.evaluate())
