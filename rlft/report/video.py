"""Videos of rollouts: uint8 frames to mp4 and back, and two rollouts side by side. PyAV is loaded at use.

H.264 is taken where the installed PyAV can encode it, because every browser plays it; VP9 and AV1 are the
stand-ins that current browsers play.
"""

import functools
import logging
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rlft.errors import RlftError, require_extra
from rlft.files import write_atomically

log = logging.getLogger(__name__)

# Encoders that browsers play inside an mp4, best first, with settings that keep small images legible.
ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"crf": "20", "preset": "medium"},
    "libvpx-vp9": {"crf": "30", "b": "0"},
    "libaom-av1": {"crf": "30", "cpu-used": "6"},
}


@functools.cache
def pick_encoder() -> str:
    """The best browser-playable encoder of the installed PyAV; an RlftError where there is none."""
    require_extra("report", "av")
    import av

    name = next((name for name in ENCODERS if name in av.codecs_available), None)
    if name is None:
        lacking = f"PyAV {av.__version__} has none of the encoders {', '.join(ENCODERS)}"
        raise RlftError(f"{lacking}; install the PyAV wheel (pip install av)")
    if name != "libx264":
        log.warning("no H.264 encoder in PyAV %s: videos are written with %s", av.__version__, name)
    return name


def write_video(path: Path, frames: np.ndarray | Sequence[np.ndarray], fps: float) -> Path:
    """Write :func:`encode_video` to an ``.mp4`` file, whole or not at all; returns ``path``."""
    write_atomically(path, encode_video(frames, fps))
    return path


def encode_video(frames: np.ndarray | Sequence[np.ndarray], fps: float) -> bytes:
    """An mp4 of uint8 ``[n, height, width, 3]`` RGB, n >= 1; odd sizes are padded by repeating the last row or column.

    Raises:
        RlftError: wrong shape or type, no frames, or a frame rate that is not positive.
    """
    clip, encoder = _checked(frames, fps), pick_encoder()
    import av

    av.logging.set_level(av.logging.ERROR)  # a dataset library before us may have asked for every statistic
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "clip.mp4"
        # faststart moves the index to the front: the first frame shows before the file is loaded.
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            rate = Fraction(fps).limit_denominator(1001)
            stream: Any = container.add_stream(encoder, rate=rate, options=dict(ENCODERS[encoder]))
            stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuv420p"
            for image in clip:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        return path.read_bytes()


def read_video(path: Path) -> tuple[np.ndarray, float]:
    """Decode a whole (short) video: uint8 ``[n, height, width, 3]`` RGB, and the frames per second.

    Raises:
        FileNotFoundError: there is no such file.
        RlftError: it is not a readable video, or holds no frame.
    """
    require_extra("report", "av")
    import av

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


def pick_frames(frames: np.ndarray, count: int) -> np.ndarray:
    """``count`` of ``[n, ...]`` frames spread evenly from the first to the last; repeated where there are fewer."""
    return frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]


def side_by_side(left: np.ndarray, right: np.ndarray, gap: int = 4) -> np.ndarray:
    """Two rollouts in one clip, started together; the shorter one holds its last frame.

    uint8 ``[n, h, w, 3]`` and ``[m, h', w', 3]`` give ``[max(n, m), max(h, h'), w + gap + w', 3]``, grey in between
    and below the lower one.
    """
    length, height = (max(left.shape[axis], right.shape[axis]) for axis in (0, 1))
    canvas = np.full((length, height, left.shape[2] + gap + right.shape[2], 3), 128, dtype=np.uint8)
    for clip, column in ((left, 0), (right, left.shape[2] + gap)):
        held = clip[np.minimum(np.arange(length), len(clip) - 1)]
        canvas[:, : clip.shape[1], column : column + clip.shape[2]] = held
    return canvas


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
