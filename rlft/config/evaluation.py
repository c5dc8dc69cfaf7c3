"""The schema of closed-loop evaluation: its protocol, and suites of several."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlft.config.declare import opt

IN_DISTRIBUTION = "in_distribution"
GROUPS = (IN_DISTRIBUTION, "vision", "semantics", "execution")


@dataclass
class SuiteMemberConfig:
    """One evaluation of a suite; what it does not say is as in the other settings."""

    name: str = opt("", "Names its row and its files.")
    group: str = opt(
        IN_DISTRIBUTION,
        "What is unlike training; exactly one member of a suite is in distribution.",
        choices=GROUPS,
    )
    id: str | None = opt(None, "The simulator's environment id; null: env.id.")
    make_kwargs: dict[str, Any] = opt({}, "Constructor arguments on top of env.make_kwargs.")
    instruction: str | None = opt(None, "Language instruction; null: env.instruction.")


@dataclass
class SuiteConfig:
    """A list of evaluations that make one table; the files of the group suite hold them."""

    name: str = opt("suite", "Stands above the table.")
    members: list[SuiteMemberConfig] = field(
        default_factory=list, metadata={"doc": "The evaluations, in the order of the table."}
    )


@dataclass
class EvalConfig:
    """Closed-loop evaluation."""

    num_envs: int = opt(16, "Environments side by side, at most; they do not change the result.", ge=1)
    episodes: int = opt(128, "Episodes in all; unused with eval.select=all.", ge=1)
    seed: int = opt(1_000_000, "Names every episode's seed and noise; never used by collection or rollouts.", ge=0)
    select: str = opt(
        "seeds",
        "Which configurations: drawn by seed; all numbered ones of the task; or a sample of different ones, balanced "
        "over object, plate, table and variant.",
        choices=("seeds", "all", "stratified"),
    )
    episode_end: str | None = opt(
        None,
        "success: the first success ends an episode; time_limit: every episode runs the full limit; null: as "
        "env.episode_ends_on_success says.",
        choices=("success", "time_limit"),
    )
    label: str = opt("policy", "Names the result: eval_<label>.json and its videos.")
    num_videos: int = opt(4, "Episodes run once more for a video, failures first.", ge=0)
    suite: SuiteConfig | None = field(
        default=None, metadata={"doc": "Several evaluations in one table (suite=put_on_plate_ood), or null."}
    )
