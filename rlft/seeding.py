"""Counter-based randomness: nothing in rlft draws from a global random stream.

Each draw is named by (run seed, purpose, counters). The same name gives the same numbers, whatever was
drawn before, in whichever process: that is what makes resuming and re-ordering exact.
"""

import hashlib

import torch


def seed_for(run_seed: int, purpose: str, *counters: int) -> int:
    """A seed in ``[0, 2**31)`` from its name: what is drawn (``rollout-episode``), and (iteration, environment, ..)."""
    name = "/".join([str(int(run_seed)), purpose, *(str(int(c)) for c in counters)])
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") % 2**31


def generator_for(run_seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A CPU torch generator seeded by :func:`seed_for`. Draw on the CPU and move: same numbers on any device."""
    return torch.Generator().manual_seed(seed_for(run_seed, purpose, *counters))
