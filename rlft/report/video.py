"""Videos of rollouts: uint8 frames to mp4 and back, and two rollouts side by side.

H.264 is taken where the installed PyAV can encode it, because every browser plays it; VP9 and AV1 are the
stand-ins that current browsers play. Importing this module needs numpy only; PyAV is loaded at use.
"""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rlft.errors import RlftError

log = logging.getLogger(__name__)

# Encoders that browsers play inside an mp4, best first, with settings that keep small pictures legible.
ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"crf": "20", "preset": "medium"},
    "libvpx-vp9": {"crf": "30", "b": "0"},
    "libaom-av1": {"crf": "30", "cpu-used": "6"},
}


class VideoError(RlftError, ValueError):
    """Frames that cannot become a video, or a file that is no readable video."""


@functools.cache
def pick_encoder() -> str:
    """The best browser-playable encoder of the installed PyAV.

    Raises:
        VideoError: none is there.
    """
    import av

    for name in ENCODERS:
        if name not in av.codecs_available:
            continue
        if name != "libx264":
            log.warning("no H.264 encoder in PyAV %s: videos are written with %s", av.__version__, name)
        return name
    raise VideoError(
        f"PyAV {av.__version__} has none of the encoders {', '.join(ENCODERS)}; install the PyAV wheel (pip install av)"
    )


def write_video(path: Path, frames: np.ndarray | Sequence[np.ndarray], fps: float) -> Path:
    """Write a video, whole or not at all.

    Args:
        path: the file, ending in ``.mp4``; its directory is made. An existing file is replaced.
        frames: uint8 ``[n, height, width, 3]`` RGB, n >= 1. Odd sizes are padded by repeating the last row or column.
        fps: frames per second.

    Returns:
        ``path``.

    Raises:
        VideoError: wrong shape or type, no frames, or a frame rate that is not positive.
    """
    clip = _checked(frames, fps)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".partial", dir=path.parent)
    os.close(handle)
    try:
        _encode(name, clip, fps)
        Path(name).chmod(0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    return path


def read_video(path: Path) -> tuple[np.ndarray, float]:
    """Decode a whole (short) video.

    Returns:
        uint8 ``[n, height, width, 3]`` RGB, and the frame rate in frames per second.

    Raises:
        FileNotFoundError: there is no such file.
        VideoError: it is not a readable video, or holds no frame.
    """
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or Fraction(20)
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except FileNotFoundError:
        raise
    except (av.error.FFmpegError, IndexError) as error:
        raise VideoError(f"{path}: not a readable video ({error}); delete it or evaluate again") from error
    if not frames:
        raise VideoError(f"{path}: the video holds no frame; delete it or evaluate again")
    return np.stack(frames), float(rate)


def pick_frames(frames: np.ndarray, count: int) -> np.ndarray:
    """``count`` frames spread evenly from the first to the last (repeated where there are fewer).

    Args:
        frames: ``[n, ...]``, n >= 1.
        count: at least 1; 1 takes the first, 3 takes first, middle and last.
    """
    return frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]


def side_by_side(left: np.ndarray, right: np.ndarray, gap: int = 4) -> np.ndarray:
    """Two rollouts in one picture, started together; the shorter one holds its last frame.

    Args:
        left: uint8 ``[n, h, w, 3]``.
        right: uint8 ``[m, h', w', 3]``; the lower picture is padded below with the gap's grey.
        gap: grey columns between them, pixels.

    Returns:
        uint8 ``[max(n, m), max(h, h'), w + gap + w', 3]``.
    """
    length = max(len(left), len(right))
    height = max(left.shape[1], right.shape[1])
    canvas = np.full((length, height, left.shape[2] + gap + right.shape[2], 3), 128, dtype=np.uint8)
    for clip, column in ((left, 0), (right, left.shape[2] + gap)):
        held = clip[np.minimum(np.arange(length), len(clip) - 1)]
        canvas[:, : clip.shape[1], column : column + clip.shape[2]] = held
    return canvas


def encode_video(frames: np.ndarray | Sequence[np.ndarray], fps: float) -> bytes:
    """As :func:`write_video`, into memory."""
    with tempfile.TemporaryDirectory() as directory:
        return write_video(Path(directory) / "clip.mp4", frames, fps).read_bytes()


def _checked(frames: np.ndarray | Sequence[np.ndarray], fps: float) -> np.ndarray:
    shapes = {np.shape(frame) for frame in frames}
    if len(shapes) != 1:
        raise VideoError(f"frames: {len(frames)} frames of shapes {sorted(shapes)}; give at least one, all of one size")
    clip = np.asarray(frames)
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[-1] != 3:
        raise VideoError(f"frames: {clip.dtype} {list(clip.shape)}; give uint8 [n, height, width, 3]")
    if not (np.isfinite(fps) and fps > 0):
        raise VideoError(f"fps={fps}: give a positive number of frames per second")
    # 4:2:0 chroma has half the rows and columns, so both have to be even.
    return np.pad(clip, ((0, 0), (0, clip.shape[1] % 2), (0, clip.shape[2] % 2), (0, 0)), mode="edge")


def _encode(path: str, clip: np.ndarray, fps: float) -> None:
    import av

    av.logging.set_level(av.logging.ERROR)  # a dataset library before us may have asked for every statistic
    encoder = pick_encoder()
    rate = Fraction(fps).limit_denominator(1001)
    # faststart moves the index to the front: the first frame shows before the file is loaded.
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream: Any = container.add_stream(encoder, rate=rate, options=dict(ENCODERS[encoder]))
        stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuv420p"
        for picture in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
