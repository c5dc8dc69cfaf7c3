"""Reading the results of evaluations: each file checked once, against itself and against what the report needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlft.errors import RlftError
from rlft.files import content_hash
from rlft.statistics import wilson_interval

RESULT = ("protocol", "protocol_hash", "episodes", "successes", "success_at_end", "strata", "macro", "per_episode")
EPISODE = ("seed", "episode_id", "success_once", "steps")
SUITE = ("suite", "rows", "groups", "unequal")
SUITE_ROW = ("name", "group", "episodes", "successes", "success", "ci95", "success_at_end", "difference",
             "difference_ci95", "protocol_hash")  # fmt: skip


class RunFileError(RlftError, ValueError):
    """A file of the run directory that is damaged or contradicts itself."""


@dataclass(frozen=True)
class Episode:
    """One evaluation episode.

    Attributes:
        seed: of the environment.
        success: success at any step.
        steps: its length, environment steps.
        episode_id: the numbered configuration, or None.
    """

    seed: int
    success: bool
    steps: int
    episode_id: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """One ``eval_<label>.json``.

    Attributes:
        label: which policy was evaluated.
        episodes: in the order of their index.
        protocol: what had to be equal; only evaluations of the same ``protocol_hash`` can be compared.
        protocol_hash: its hash.
        raw: the whole file.
    """

    label: str
    episodes: tuple[Episode, ...]
    protocol: Mapping[str, Any]
    protocol_hash: str
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def max_episode_len(self) -> int:
        """Time limit, environment steps."""
        return int(self.protocol["max_episode_steps"])

    @property
    def successes(self) -> int:
        """Episodes that succeeded."""
        return sum(episode.success for episode in self.episodes)

    @property
    def success(self) -> float:
        """Success rate, 0..1."""
        return self.successes / len(self.episodes)

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson's 95 % interval, from the counts."""
        return wilson_interval(self.successes, len(self.episodes))


def parse_object(path: Path, line: int, text: str, remedy: str) -> Mapping[str, Any]:
    """A JSON object.

    Args:
        path: the file that it is from.
        line: the line there that ``text`` begins with.
        text: JSON.
        remedy: what to do where it is none.

    Raises:
        RunFileError: names file and line.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}"
        raise RunFileError(f"{where}: not JSON ({error.msg} at column {error.colno}); {remedy}") from error
    if not isinstance(value, dict):
        raise RunFileError(f"{path}:{line}: holds a {type(value).__name__}, not an object; {remedy}")
    return value


def read_evaluation(path: Path) -> Evaluation:
    """Read an ``eval_<label>.json``.

    Raises:
        RunFileError: it is damaged, by an earlier version, or contradicts itself.
    """
    label = path.stem.removeprefix("eval_")
    remedy = f"evaluate that checkpoint again with eval.label={label}, or move the file away to do without it"
    raw = parse_object(path, 1, path.read_text(encoding="utf-8"), remedy)
    _require(path, RESULT, [raw], remedy)
    _require(path, EPISODE, raw["per_episode"], remedy)
    try:
        episodes = tuple(
            Episode(int(e["seed"]), bool(e["success_once"]), int(e["steps"]), e["episode_id"])
            for e in raw["per_episode"]
        )
        protocol, protocol_hash = dict(raw["protocol"]), str(raw["protocol_hash"])
        counted, wins = int(raw["episodes"]), int(raw["successes"])
    except (TypeError, ValueError) as error:
        raise RunFileError(f"{path}:1: holds what is no result ({error}); {remedy}") from error
    if content_hash(protocol) != protocol_hash or "max_episode_steps" not in protocol:
        raise RunFileError(f"{path}:1: protocol_hash is not that of the protocol beside it; {remedy}")
    if not episodes:
        raise RunFileError(f"{path}:1: per_episode is empty; {remedy}")
    if (len(episodes), sum(e.success for e in episodes)) != (counted, wins):
        raise RunFileError(
            f"{path}:1: episodes={counted}, successes={wins} contradict per_episode, which holds "
            f"{sum(e.success for e in episodes)} of {len(episodes)}; {remedy}"
        )
    return Evaluation(label=label, episodes=episodes, protocol=protocol, protocol_hash=protocol_hash, raw=raw)


def read_suite(path: Path) -> Mapping[str, Any]:
    """Read an ``eval_suite_<label>.json``; errors as in :func:`read_evaluation`."""
    remedy = "run the suite again (members that are done are kept), or move the file away to do without it"
    raw = parse_object(path, 1, path.read_text(encoding="utf-8"), remedy)
    _require(path, SUITE, [raw], remedy)
    _require(path, SUITE_ROW, raw["rows"], remedy)
    return raw


def _require(path: Path, names: Sequence[str], entries: Any, remedy: str) -> None:
    """Every entry has every name."""
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise RunFileError(f"{path}:1: holds no list of objects where {', '.join(names)} are looked for; {remedy}")
    lacking = [name for name in names if any(name not in entry for entry in entries)]
    if lacking:
        raise RunFileError(
            f"{path}:1: lacks {', '.join(lacking)}: an earlier version of rlft wrote it, or it was edited; {remedy}"
        )
