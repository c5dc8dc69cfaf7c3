"""Which episodes an evaluation runs. Their names alone decide what happens in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rlft.errors import RlftError
from rlft.evaluate.protocol import Protocol
from rlft.evaluate.strata import stratified_sample
from rlft.seeding import seed_for
from rlft.types import ConfigurationSpace

SEEDS, ALL, STRATIFIED = "seeds", "all", "stratified"
MAX_ALL = 1_000_000  # the largest split that is run as a whole: 802,816 configurations


@dataclass(frozen=True)
class Episode:
    """One episode to run; the same name gives the same episode wherever and whenever it runs."""

    index: int  # its place in the protocol's list; also names the policy's noise
    seed: int  # of the environment
    episode_id: int | None = None  # the numbered configuration; None where the seed decides
    labels: Mapping[str, str] = field(default_factory=dict)  # what the configuration shows


def choose_ids(select: str, episodes: int, seed: int, numbered: ConfigurationSpace | None) -> tuple[int, ...] | None:
    """The configurations of the episodes, in order.

    Args:
        select: ``seeds``: each drawn by its own seed, with repetition; ``all``: each of them once; ``stratified``:
            ``episodes`` different ones, balanced over the labels.
        episodes: how many; ``all`` takes as many as there are.
        seed: names the draw.
        numbered: None for a task that does not number its configurations; then the environment draws (``seeds``).

    Raises:
        RlftError: the task has no numbered configurations, or too few.
    """
    if numbered is None:
        if select == SEEDS:
            return None
        raise RlftError(
            f"eval.select={select} needs a task whose configurations are numbered, and this one's are not; "
            f"use eval.select={SEEDS}"
        )
    if select == ALL:
        if numbered.count > MAX_ALL:
            raise RlftError(
                f"eval.select={ALL} would run {numbered.count:,} episodes, more than {MAX_ALL:,}; "
                f"use eval.select={STRATIFIED} with eval.episodes"
            )
        return tuple(range(numbered.count))
    if select == STRATIFIED:
        if episodes > numbered.count:
            raise RlftError(
                f"eval.episodes={episodes}, but the task has {numbered.count} configurations; "
                f"use eval.episodes={numbered.count} or less, or eval.select={ALL}"
            )
        return stratified_sample(numbered, episodes, seed)
    # Two seeds of 31 bits each: there are tasks with more configurations than one can name.
    drawn = ((seed_for(seed, "eval-configuration", i, j) for j in range(2)) for i in range(episodes))
    return tuple((high * 2**31 + low) % numbered.count for high, low in drawn)


def list_episodes(protocol: Protocol, numbered: ConfigurationSpace | None) -> list[Episode]:
    """The protocol's episodes, by index."""
    seeds = [seed_for(protocol.seed, "eval-episode", i) for i in range(protocol.episodes)]
    if protocol.episode_ids is None:
        return [Episode(i, seed) for i, seed in enumerate(seeds)]
    labels = (lambda _: {}) if numbered is None else numbered.labels
    return [
        Episode(i, seed, episode_id, dict(labels(episode_id)))
        for i, (seed, episode_id) in enumerate(zip(seeds, protocol.episode_ids, strict=True))
    ]
