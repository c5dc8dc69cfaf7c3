"""Before/after video pairs of the same evaluation seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlft.report.evalfiles import Evaluation
from rlft.report.rundir import RunFiles, Video
from rlft.report.video import encode_video, pick_frames, read_video, side_by_side


@dataclass(frozen=True)
class VideoPair:
    """One evaluation seed, recorded before and after."""

    index: int
    seed: int
    before: Video
    after: Video

    @property
    def gained(self) -> bool:
        """Failure before, success after."""
        return self.after.success and not self.before.success


@dataclass(frozen=True)
class Strip:
    """Frames of one pair from first to last, uint8 ``[n, h, w, 3]`` each."""

    seed: int
    before: np.ndarray
    after: np.ndarray
    before_success: bool
    after_success: bool


def find_pairs(run: RunFiles) -> list[VideoPair]:
    """The episodes that were recorded before and after under the same protocol, by index."""
    if run.before is None or run.after is None or run.before.protocol_hash != run.after.protocol_hash:
        return []
    early, late = (_by_index(run, evaluation) for evaluation in (run.before, run.after))
    return [
        VideoPair(index, run.before.episodes[index].seed, early[index], late[index])
        for index in sorted(early.keys() & late.keys())
    ]


def make_strip(pairs: list[VideoPair], count: int = 7) -> Strip | None:
    """Frames of the first pair that PPO gained, or else of the first pair; None without pairs.

    Args:
        pairs: as found.
        count: frames per side.
    """
    if not pairs:
        return None
    pair = next((pair for pair in pairs if pair.gained), pairs[0])
    before, after = (pick_frames(read_video(video.path)[0], count) for video in (pair.before, pair.after))
    return Strip(pair.seed, before, after, pair.before.success, pair.after.success)


def encode_pair(pair: VideoPair) -> bytes:
    """One mp4 with the two rollouts side by side, started together, at the frame rate of the first."""
    before, fps = read_video(pair.before.path)
    after, _ = read_video(pair.after.path)
    return encode_video(side_by_side(before, after), fps)


def _by_index(run: RunFiles, evaluation: Evaluation) -> dict[int, Video]:
    return {v.index: v for v in run.videos if v.label == evaluation.label and v.index < len(evaluation.episodes)}
