"""Keeps what a collection has done so far, so that an interrupted one can go on."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rlft.data.episode import DatasetError, Episode

log = logging.getLogger(__name__)

FILE = "attempts.jsonl"


@dataclass(frozen=True)
class Record:
    """The outcome of one attempt.

    Attributes:
        number: the attempt's number.
        seed: the episode's seed.
        outcome: ``success`` or the kind of failure.
        steps: recorded steps.
        solved_at: steps until the first success, or None.
        seconds: wall time.
        message: why it failed.
    """

    number: int
    seed: int
    outcome: str
    steps: int
    solved_at: int | None
    seconds: float
    message: str


class Journal:
    """A directory with one line per finished attempt and one file per recorded episode.

    An attempt counts once its line is whole, and its line is written after its episode: whatever the moment of
    an interruption, nothing counts that is not there.

    Args:
        root: the directory.
        records: attempt number -> outcome.
    """

    def __init__(self, root: Path, records: dict[int, Record]) -> None:
        self.root, self.records = root, records

    @classmethod
    def open(cls, root: Path, key: dict[str, Any]) -> Self:
        """Start a journal, or continue the one that lies there.

        Args:
            root: the directory; made where it is missing.
            key: everything that decides what an attempt records.

        Raises:
            DatasetError: the journal that lies there belongs to other settings.
        """
        root.mkdir(parents=True, exist_ok=True)
        path = root / FILE
        key = json.loads(json.dumps(key))
        lines = _whole_lines(path)
        if not lines:
            path.write_text(json.dumps(key) + "\n")
            return cls(root, {})
        found = json.loads(lines[0])
        differing = sorted(name for name in {*found, *key} if found.get(name) != key.get(name))
        if differing:
            problems = [
                f"{name} was {found.get(name)!r} in the interrupted collection and is {key.get(name)!r} now"
                for name in differing
            ]
            raise DatasetError(
                root, [*problems, f"repeat the earlier settings to continue, or remove {root} to start anew"]
            )
        records = {record.number: record for record in (Record(**json.loads(line)) for line in lines[1:])}
        return cls(root, records)

    @property
    def path(self) -> Path:
        """The list of attempts."""
        return self.root / FILE

    def _part(self, number: int) -> Path:
        return self.root / f"attempt_{number:06d}.npz"

    def add(self, record: Record, episode: Episode | None) -> None:
        """Keep the outcome of an attempt and, where given, its episode."""
        if episode is not None:
            episode.save(self._part(record.number))
        with self.path.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(record)) + "\n")
        self.records[record.number] = record

    def episode(self, record: Record) -> Episode:
        """The recorded episode of an attempt.

        Raises:
            DatasetError: its file is gone or broken.
        """
        path = self._part(record.number)
        try:
            return Episode.load(path)
        except (OSError, ValueError, KeyError) as error:
            raise DatasetError(
                self.root, [f"{path.name} cannot be read ({error}); remove {self.root} to collect anew"]
            ) from error


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file; a last one that an interruption cut off is removed from it."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        log.warning("%s ends in a line that was cut off; that attempt is made again", path)
        os.truncate(path, len(whole))
    return whole.decode().splitlines()
