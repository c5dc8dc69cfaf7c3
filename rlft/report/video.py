"""Videos of rollouts: uint8 frames to mp4 and back, and two rollouts side by side. PyAV is loaded at use.

H.264 is taken where the installed PyAV can encode it, because every browser plays it; VP9 and AV1 are the
stand-ins that current browsers play.
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

from rlft.errors import RlftError, missing_extra

log = logging.getLogger(__name__)

# Encoders that browsers play inside an mp4, best first, with settings that keep small images legible.
ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"crf": "20", "preset": "medium"},
    "libvpx-vp9": {"crf": "30", "b": "0"},
    "libaom-av1": {"crf": "30", "cpu-used": "6"},
}


@functools.cache
def pick_encoder() -> str:
    """The best browser-playable encoder of the installed PyAV.

    Raises:
        RlftError: none is there.
    """
    av = _av()
    for name in ENCODERS:
        if name not in av.codecs_available:
            continue
        if name != "libx264":
            log.warning("no H.264 encoder in PyAV %s: videos are written with %s", av.__version__, name)
        return name
    raise RlftError(
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
        RlftError: wrong shape or type, no frames, or a frame rate that is not positive.
    """
    write_whole(path, encode_video(frames, fps))
    return path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; its directory is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def encode_video(frames: np.ndarray | Sequence[np.ndarray], fps: float) -> bytes:
    """The content of such a file; errors as :func:`write_video`."""
    clip = _checked(frames, fps)
    encoder, av = pick_encoder(), _av()
    av.logging.set_level(av.logging.ERROR)  # a dataset library before us may have asked for every statistic
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "clip.mp4"
        # faststart moves the index to the front: the first frame shows before the file is loaded.
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            rate = Fraction(fps).limit_denominator(1001)
            stream = container.add_stream(encoder, rate=rate, options=dict(ENCODERS[encoder]))
            stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuv420p"
            for image in clip:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        return path.read_bytes()


def read_video(path: Path) -> tuple[np.ndarray, float]:
    """Decode a whole (short) video.

    Returns:
        uint8 ``[n, height, width, 3]`` RGB, and the frame rate in frames per second.

    Raises:
        FileNotFoundError: there is no such file.
        RlftError: it is not a readable video, or holds no frame.
    """
    av = _av()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or Fraction(20)
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except FileNotFoundError:  # is an FFmpegError, too
        raise
    except (av.error.FFmpegError, IndexError) as error:
        raise RlftError(f"{path}: not a readable video ({error}); delete it or evaluate again") from error
    if not frames:
        raise RlftError(f"{path}: the video holds no frame; delete it or evaluate again")
    return np.stack(frames), float(rate)


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise missing_extra("report", "av") from error
    return av


def _checked(frames: np.ndarray | Sequence[np.ndarray], fps: float) -> np.ndarray:
    shapes = {np.shape(frame) for frame in frames}
    if len(shapes) != 1:
        raise RlftError(f"frames: {len(frames)} frames of shapes {sorted(shapes)}; give at least one, all of one size")
    clip = np.asarray(frames)
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[-1] != 3:
        raise RlftError(f"frames: {clip.dtype} {list(clip.shape)}; give uint8 [n, height, width, 3]")
    if not (np.isfinite(fps) and fps > 0):
        raise RlftError(f"fps={fps}: give a positive number of frames per second")
    # 4:2:0 chroma has half the rows and columns, so both have to be even.
    return np.pad(clip, ((0, 0), (0, clip.shape[1] % 2), (0, clip.shape[2] % 2), (0, 0)), mode="edge")
