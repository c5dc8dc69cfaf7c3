"""Keeps what a collection has done so far, so that an interrupted one can go on."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import Any

from rlft.data.episode import DatasetError, Episode
from rlft.types import AttemptRecord

log = logging.getLogger(__name__)

FILE = "attempts.jsonl"


class AttemptLog:
    """A directory with one line per finished attempt and one file per recorded episode.

    An attempt counts once its line is whole, and its line is written after its episode: whatever the moment of
    an interruption, nothing counts that is not there.

    Args:
        root: made where it is missing; what lies there is continued.
        key: everything that decides what an attempt records.

    Raises:
        DatasetError: the attempts that lie there were made with other settings.
    """

    def __init__(self, root: Path, key: dict[str, Any]) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.path = root, root / FILE
        key = json.loads(json.dumps(key))
        lines = _whole_lines(self.path)
        if not lines:
            lines = [json.dumps(key)]
            self.path.write_text(lines[0] + "\n")
        found = json.loads(lines[0])
        problems = [
            f"{name} was {found.get(name)!r} in the interrupted collection and is {key.get(name)!r} now"
            for name in sorted({*found, *key})
            if found.get(name) != key.get(name)
        ]
        if problems:
            remedy = f"repeat the earlier settings to continue, or remove {root} to start anew"
            raise DatasetError(root, [*problems, remedy])
        done = [AttemptRecord(**json.loads(line)) for line in lines[1:]]
        self.records = {record.number: record for record in done}  # by attempt number

    def part(self, number: int) -> Path:
        """Where the episode of an attempt is kept; whoever records it writes it there."""
        return self.root / f"attempt_{number:06d}.npz"

    def add(self, record: AttemptRecord) -> None:
        """Note the outcome of an attempt, after its episode has been written."""
        with self.path.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(record)) + "\n")
        self.records[record.number] = record

    def episode(self, record: AttemptRecord) -> Episode:
        """The recorded episode of an attempt; a file that is gone or broken is a DatasetError."""
        path = self.part(record.number)
        try:
            return Episode.load(path, record.seed)
        except (OSError, ValueError, KeyError) as error:
            problem = f"{path.name} cannot be read ({error}); remove {self.root} to collect anew"
            raise DatasetError(self.root, [problem]) from error


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
