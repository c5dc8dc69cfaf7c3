from pathlib import Path

import av
import numpy as np
import pytest
from report_run_builder import rollout_frames

from rlft.errors import RlftError
from rlft.report import video
from rlft.report.video import pick_frames, read_video, side_by_side, write_video


def test_frames_survive_and_odd_sizes_are_padded_with_the_edge(tmp_path: Path):
    frames = rollout_frames(True, 15, size=(57, 63))
    decoded, fps = read_video(write_video(tmp_path / "new" / "clip.mp4", frames, 12.5))
    assert fps == pytest.approx(12.5)
    assert decoded.shape == (15, 58, 64, 3)
    assert np.abs(decoded[:, :57, :63].astype(int) - frames).mean() < 4
    assert np.abs(decoded[:, 57].astype(int) - decoded[:, 56]).mean() < 4
    assert np.abs(decoded[:, :, 63].astype(int) - decoded[:, :, 62]).mean() < 4


def test_the_encoder_is_one_that_browsers_play(tmp_path: Path):
    path = write_video(tmp_path / "clip.mp4", rollout_frames(True, 3), 20)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.format.name) in {(n, "yuv420p") for n in ("h264", "vp9", "libdav1d")}
    # The index stands before the images, so that a browser can start at once.
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch):
    """What PyAV can encode; to be changed."""
    names = set(av.codecs_available)
    monkeypatch.setattr(av, "codecs_available", names)
    video.pick_encoder.cache_clear()
    yield names
    video.pick_encoder.cache_clear()


@pytest.mark.parametrize("encoder", ["libvpx-vp9", "libaom-av1"])
def test_stand_in_encoders_work_where_h264_is_missing(encoder: str, encoders: set[str], tmp_path: Path):
    if encoder not in encoders:
        pytest.skip(f"this PyAV has no {encoder}")
    encoders &= {encoder}
    decoded, _ = read_video(write_video(tmp_path / "clip.mp4", rollout_frames(True, 4), 20))
    assert decoded.shape == (4, 58, 64, 3)


def test_no_encoder_at_all_is_an_error_that_names_the_remedy(encoders: set[str], tmp_path: Path):
    encoders &= {"gif"}
    with pytest.raises(RlftError, match=r"none of the encoders libx264.*install"):
        write_video(tmp_path / "clip.mp4", rollout_frames(True, 2), 20)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), 20, "0 frames"),
        (np.zeros((2, 8, 8, 3), np.float32), 20, "float32"),
        (np.zeros((2, 8, 8), np.uint8), 20, r"\[2, 8, 8\]"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], 20, "one size"),
        (np.zeros((2, 8, 8, 3), np.uint8), 0, "fps=0"),
        (np.zeros((2, 8, 8, 3), np.uint8), float("nan"), "fps=nan"),
    ],
)
def test_bad_frames_are_refused_and_leave_no_file(frames, fps: float, message: str, tmp_path: Path):
    with pytest.raises(RlftError, match=message):
        write_video(tmp_path / "clip.mp4", frames, fps)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_video(tmp_path / "clip.mp4", rollout_frames(True, 3), 20)
    old = path.read_bytes()

    def fail(target: Path, content: bytes) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("rlft.files.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_video(path, rollout_frames(False, 3), 20)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_file_is_named(tmp_path: Path):
    path = tmp_path / "sft_0_failure.mp4"
    path.write_bytes(b"not a video")
    with pytest.raises(RlftError, match=r"sft_0_failure\.mp4: not a readable video"):
        read_video(path)
    with pytest.raises(FileNotFoundError):
        read_video(tmp_path / "absent.mp4")


def test_picked_frames_run_from_first_to_last():
    frames = np.arange(11)
    assert pick_frames(frames, 3).tolist() == [0, 5, 10]
    assert pick_frames(frames, 1).tolist() == [0]
    assert pick_frames(frames[:2], 4).tolist() == [0, 0, 1, 1]


def test_side_by_side_holds_the_last_frame_of_the_shorter_one():
    left = np.stack([np.full((4, 6, 3), value, np.uint8) for value in (10, 20)])
    right = np.stack([np.full((6, 4, 3), value, np.uint8) for value in (1, 2, 3)])
    both = side_by_side(left, right, gap=2)
    assert both.shape == (3, 6, 12, 3)
    assert both[:, 0, 0, 0].tolist() == [10, 20, 20]
    assert both[:, 5, 11, 0].tolist() == [1, 2, 3]
    assert np.all(both[:, :, 6:8] == 128)
    assert np.all(both[:, 4:, :6] == 128)
