"""Say what a run takes before it starts: bytes on every device, FLOPs, and the settings that would make it fit.

Takes the settings of train_rl and train_sft. More options:
  --stage rl|sft|all  what is planned; both by default
  --gpu-gib N         memory of every GPU, GiB; measured where the GPU is in this machine
  --host-gib N        memory of the host, GiB; measured where it is not given
  --sim-gib N         what simulation on a GPU takes there, GiB; else it is left out
  --frames N          frames of the demonstrations; else as many as they could have
"""

import sys

from rlft import cli
from rlft.config.schema import RunConfig
from rlft.plan.page import plan_page, split_options


def main(argv: list[str]) -> int:
    """Read both kinds of options; plan."""
    options, rest = split_options(argv)

    def run(cfg: RunConfig) -> None:
        print(plan_page(cfg, options), end="")

    return cli.main("plan", run, __doc__, rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
