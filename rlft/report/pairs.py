"""The same evaluation episodes before and after PPO, seen together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlft.report.rundir import RunFiles, Video
from rlft.report.video import encode_video, read_video


@dataclass(frozen=True)
class VideoPair:
    """One evaluation episode, recorded before and after."""

    index: int
    seed: int
    before: Video
    after: Video

    @property
    def gained(self) -> bool:
        """Failure before, success after."""
        return self.after.success and not self.before.success

    def encode(self) -> bytes:
        """One mp4 with the two rollouts side by side, at the frame rate of the first."""
        (before, fps), (after, _) = (read_video(video.path) for video in (self.before, self.after))
        return encode_video(side_by_side(before, after), fps)


def find_pairs(run: RunFiles) -> list[VideoPair]:
    """The episodes that were recorded before and after under the same protocol, by index."""
    if run.before is None or run.after is None or run.before.protocol_hash != run.after.protocol_hash:
        return []
    early, late = ({v.index: v for v in run.videos if v.label == e.label} for e in (run.before, run.after))
    shown = [e for e in run.before.per_episode if e.index in early and e.index in late]
    return [VideoPair(e.index, e.seed, early[e.index], late[e.index]) for e in shown]


def pick_frames(frames: np.ndarray, count: int) -> np.ndarray:
    """``count`` frames spread evenly from the first to the last (repeated where there are fewer).

    Args:
        frames: ``[n, ...]``, n >= 1.
        count: at least 1; 1 takes the first, 3 takes first, middle and last.
    """
    return frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]


def side_by_side(left: np.ndarray, right: np.ndarray, gap: int = 4) -> np.ndarray:
    """Two rollouts in one clip, started together; the shorter one holds its last frame.

    Args:
        left: uint8 ``[n, h, w, 3]``.
        right: uint8 ``[m, h', w', 3]``; the lower image is padded below with the gap's grey.
        gap: grey columns between them, pixels.

    Returns:
        uint8 ``[max(n, m), max(h, h'), w + gap + w', 3]``.
    """
    length, height = (max(left.shape[axis], right.shape[axis]) for axis in (0, 1))
    canvas = np.full((length, height, left.shape[2] + gap + right.shape[2], 3), 128, dtype=np.uint8)
    for clip, column in ((left, 0), (right, left.shape[2] + gap)):
        held = clip[np.minimum(np.arange(length), len(clip) - 1)]
        canvas[:, : clip.shape[1], column : column + clip.shape[2]] = held
    return canvas
