"""The schema of closed-loop evaluation: its protocol, and suites of several."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic.dataclasses import dataclass

from rlft.config.base import SECTION, Int, opt

IN_DISTRIBUTION = "in_distribution"
Group = Literal["in_distribution", "vision", "semantics", "execution"]
GROUPS: tuple[str, ...] = get_args(Group)


@dataclass(config=SECTION, frozen=True)
class SuiteMemberConfig:
    """One evaluation of a suite; what it does not say is as in the other settings."""

    name: str = opt("", "Names its row and its files.")
    group: Group = opt(IN_DISTRIBUTION, "What is unlike training; exactly one member is in distribution.")
    id: str | None = opt(None, "The simulator's environment id; null: env.id.")
    make_kwargs: dict[str, Any] = opt({}, "Constructor arguments on top of env.make_kwargs.")
    instruction: str | None = opt(None, "Language instruction; null: env.instruction.")


@dataclass(config=SECTION, frozen=True)
class SuiteConfig:
    """A list of evaluations that make one table; the files of the group suite hold them."""

    name: str = opt("suite", "Stands above the table.")
    members: list[SuiteMemberConfig] = opt([], "The evaluations, in the order of the table.")


@dataclass(config=SECTION, frozen=True)
class EvalConfig:
    """Closed-loop evaluation."""

    num_envs: Int = opt(16, "Environments side by side, at most; they do not change the result.", ge=1)
    episodes: Int = opt(128, "Episodes in all; unused with eval.select=all.", ge=1)
    seed: Int = opt(1_000_000, "Names every episode's seed and noise; never used by collection or rollouts.", ge=0)
    select: Literal["seeds", "all", "stratified"] = opt(
        "seeds", "Which configurations: drawn by seed, all numbered ones, or different ones, balanced by their labels."
    )
    episode_end: Literal["success", "time_limit"] | None = opt(
        None, "What ends an episode: the first success, or time alone; null: as env.episode_ends_on_success says."
    )
    label: str = opt("policy", "Names the result: eval_<label>.json and its videos.")
    num_videos: Int = opt(4, "Episodes run once more for a video, failures first.", ge=0)
    suite: SuiteConfig | None = opt(None, "Several evaluations in one table (group suite), or null.")
