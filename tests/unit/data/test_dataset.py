import dataclasses
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rlft.data.dataset import DemoSet
from rlft.data.episode import DatasetError, DemoMeta, Episode, fingerprint, write_demos
from rlft.types import DemoAttempt
from rlft_envs.record import DemoRecording

LENGTHS = (4, 7, 3)
META = DemoMeta("PushCube-v1", "pd_ee_delta_pos", ("front", "side"), ("tcp_pos",), 20, "scripted", 0)


def episode(number: int, steps: int) -> Episode:
    rng = np.random.default_rng(number)
    ramp = np.linspace(0, 200, 48 * 64 * 3).reshape(48, 64, 3)
    smooth = np.stack([(ramp + 5 * step + number).astype(np.uint8) for step in range(steps)])
    return Episode(
        images={"front": smooth, "side": smooth[:, :, :48].copy()},
        state=rng.normal(size=(steps, 3)).astype(np.float32),
        action=rng.normal(size=(steps, 2)).astype(np.float32),
        task="push the cube",
        seed=100 + number,
    )


def write(root, *, video=False):
    episodes = [episode(i, steps) for i, steps in enumerate(LENGTHS)]
    write_demos(root, "local/demos", META, episodes, video=video)
    return episodes


@pytest.fixture(scope="module")
def png(tmp_path_factory):
    root = tmp_path_factory.mktemp("png") / "dataset"
    return root, write(root)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    root = tmp_path_factory.mktemp("video") / "dataset"
    return root, write(root, video=True)


@pytest.fixture
def broken(png, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(png[0], tmp_path / "dataset")


def test_what_is_read_equals_what_was_written(png):
    root, episodes = png
    demos = DemoSet.load(root, horizon=2)
    assert demos.lengths.tolist() == list(LENGTHS)
    assert np.array_equal(demos.state.numpy(), np.concatenate([e.state for e in episodes]))
    assert np.array_equal(demos.action.numpy(), np.concatenate([e.action for e in episodes]))
    for camera in META.cameras:
        assert np.array_equal(demos.images[camera].numpy(), np.concatenate([e.images[camera] for e in episodes]))
    assert demos.tasks == ["push the cube"] * 14
    assert demos.meta.seeds == (100, 101, 102)
    assert demos.meta.fingerprint == fingerprint((e.state, e.action) for e in episodes)


def test_plain_lerobot_reads_the_same(png):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root, episodes = png
    theirs = LeRobotDataset("local/demos", root=root, video_backend="pyav")
    row = theirs[5]  # episode 1, step 1
    assert theirs.num_episodes == 3
    assert torch.equal(row["action"], torch.from_numpy(episodes[1].action[1]))
    image = torch.from_numpy(episodes[1].images["front"][1]).permute(2, 0, 1) / 255
    assert torch.equal(row["observation.images.front"], image)
    assert row["task"] == "push the cube"


def test_video_is_read_back_nearly_the_same(video):
    root, episodes = video
    demos = DemoSet.load(root, horizon=2)
    found, wanted = demos.images["front"].numpy(), np.concatenate([e.images["front"] for e in episodes]).astype(float)
    assert np.abs(found - wanted).mean() < 6.0
    # Shifted by one frame the images fit worse: order and alignment are right.
    assert np.abs(found[1:] - wanted[:-1]).mean() > 1.2 * np.abs(found - wanted).mean()
    assert np.array_equal(demos.action.numpy(), np.concatenate([e.action for e in episodes]))


def test_windows_repeat_the_last_action_of_their_own_episode(png):
    root, episodes = png
    batch = DemoSet.load(root, horizon=3).rows(torch.tensor([0, 2, 3, 13]))
    a = episodes[0].action
    assert np.array_equal(batch.actions[0].numpy(), a[[0, 1, 2]])
    assert np.array_equal(batch.actions[1].numpy(), a[[2, 3, 3]])
    assert np.array_equal(batch.actions[2].numpy(), a[[3, 3, 3]])
    assert np.array_equal(batch.actions[3].numpy(), episodes[2].action[[2, 2, 2]])
    assert batch.is_pad.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 1]]
    assert np.array_equal(batch.obs.images["side"][1].numpy(), episodes[0].images["side"][2])
    assert np.array_equal(batch.obs.state[3].numpy(), episodes[2].state[2])


def test_batches_are_named_by_their_generator(png):
    demos = DemoSet.load(png[0], horizon=2)
    one, same, other = (demos.sample(torch.Generator().manual_seed(s), 8) for s in (1, 1, 2))
    assert torch.equal(one.actions, same.actions)
    assert not torch.equal(one.actions, other.actions)
    seen = torch.cat([demos.sample(torch.Generator().manual_seed(s), 64).actions[:, 0] for s in range(5)])
    assert len(torch.unique(seen, dim=0)) == len(demos)  # every frame is drawn


@pytest.mark.parametrize(
    "name",
    ["../../x", "a/../b", "/etc/x", "a/b/c", "a", "a/b\0", "a/" + "b" * 300, ".a/b", "a/-b", "", "a b/c", "a/b\n"],
)
def test_names_that_could_escape_are_refused(name, tmp_path):
    with pytest.raises(DatasetError, match="owner/name"):
        write_demos(tmp_path / "d", name, META, [])
    assert list(tmp_path.iterdir()) == []


def test_directories_that_must_not_be_written_are_refused(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, word in (
        (tmp_path / "there", "exists"),
        (tmp_path / "link", "exists"),
        (tmp_path / "a\0b", "NUL"),
        (tmp_path / "x" / ".." / "y", "'..'"),
        (tmp_path / ("n" * 300), "longer"),
    ):
        with pytest.raises(DatasetError, match=word):
            write_demos(path, "local/demos", META, [])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "there"]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("state", np.full((4, 3), np.nan, np.float32), "state is not finite, first at step 0"),
        ("action", np.full((4, 2), np.inf, np.float32), "action is not finite"),
        ("action", np.zeros((4, 2)), "float64"),
        ("state", np.zeros((3, 3), np.float32), r"wanted float32 \[4"),
        ("images", {"front": np.zeros((4, 3, 8, 8), np.uint8), "side": np.zeros((4, 8, 8, 3), np.uint8)}, "front"),
        ("images", {"front": np.zeros((4, 48, 64, 3), np.uint8)}, "cameras are"),
        ("task", "  ", "task is empty"),
    ],
)
def test_an_episode_that_would_poison_the_set_is_refused(field, value, says, tmp_path):
    good = episode(0, 4)
    bad = dataclasses.replace(good, **{field: value})
    with pytest.raises(DatasetError, match=says):
        write_demos(tmp_path / "d", "local/demos", META, [good, bad])
    assert list(tmp_path.iterdir()) == []


def test_an_episode_of_another_shape_is_refused(tmp_path):
    other = episode(1, 4)
    other.images["front"] = other.images["front"][:, :8]
    with pytest.raises(DatasetError, match=r"episode 1 \(seed 101\).*shape"):
        write_demos(tmp_path / "d", "local/demos", META, [episode(0, 4), other])


def test_images_too_small_for_video_are_refused_before_the_encoder_sees_them(tmp_path):
    small = episode(0, 4)
    small.images["side"] = np.zeros((4, 16, 16, 3), np.uint8)
    with pytest.raises(DatasetError, match=r"\['side'\] are smaller than 32"):
        write_demos(tmp_path / "d", "local/demos", META, [small], video=True)


def test_vectors_of_one_number_stay_vectors(tmp_path):
    one = Episode({}, np.arange(3, dtype=np.float32)[:, None], np.ones((3, 1), np.float32), "wait", 1)
    write_demos(tmp_path / "d", "local/demos", dataclasses.replace(META, cameras=()), [one])
    demos = DemoSet.load(tmp_path / "d", horizon=2)
    assert demos.state.tolist() == [[0.0], [1.0], [2.0]]
    assert demos.rows(torch.tensor([1])).actions.shape == (1, 2, 1)


def test_nothing_stays_of_a_dataset_that_was_not_finished(tmp_path):
    with pytest.raises(DatasetError, match="no episode"):
        write_demos(tmp_path / "d", "local/demos", META, [])

    def interrupted():
        yield episode(0, 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demos(tmp_path / "d", "local/demos", META, interrupted())
    assert list(tmp_path.iterdir()) == []


def edit_info(root, **changes):
    path = root / "meta" / "info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_table(path, column, change):
    table = pq.read_table(path)
    rows = table.column(column).to_pylist()
    change(rows)
    index = table.column_names.index(column)
    pq.write_table(table.set_column(index, column, pa.array(rows, type=table.schema.field(column).type)), path)


def data_file(root):
    return root / "data" / "chunk-000" / "file-000.parquet"


def episode_file(root):
    return root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"


def set_row(row, value):
    def change(rows):
        rows[row] = value

    return change


DAMAGE = {
    "no dataset": (lambda root: shutil.rmtree(root / "meta"), "no LeRobotDataset"),
    "broken info": (lambda root: (root / "meta" / "info.json").write_text("{"), "cannot be read"),
    "old version": (lambda root: edit_info(root, codebase_version="v2.1"), "v2.1; wanted v3.x"),
    "no meta": (lambda root: (root / "rlft.json").unlink(), "rlft.json cannot be read"),
    "missing data file": (lambda root: data_file(root).unlink(), "file-000.parquet is missing"),
    "truncated data file": (lambda root: data_file(root).write_bytes(data_file(root).read_bytes()[:500]), "cannot be"),
    "missing episode file": (lambda root: episode_file(root).unlink(), "has no parquet file"),
    "wrong total": (lambda root: edit_info(root, total_frames=15), "total_frames is 15, but 14"),
    "escape": (lambda root: edit_info(root, data_path="../x-{chunk_index}-{file_index}"), "outside the dataset"),
    "bad template": (lambda root: edit_info(root, data_path="{nothing}"), "cannot be filled in"),
    "nan": (
        lambda root: edit_table(data_file(root), "action", set_row(6, [0.0, float("nan")])),
        "action is not finite in 1 frames, first in episode 1, step 2",
    ),
    "zero length": (lambda root: edit_table(episode_file(root), "length", set_row(2, 0)), "episode 2 has no steps"),
    "count": (lambda root: edit_table(episode_file(root), "length", set_row(1, 8)), "episode 1 has 7 frames"),
    "doubled": (lambda root: edit_table(data_file(root), "index", set_row(3, 2)), "index does not count"),
    "frame order": (lambda root: edit_table(data_file(root), "frame_index", set_row(1, 0)), "frame_index does not"),
    "changed": (lambda root: edit_table(data_file(root), "action", set_row(0, [9.0, 9.0])), "fingerprint"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_and_refused(what, broken):
    damage, says = DAMAGE[what]
    damage(broken)
    with pytest.raises(DatasetError) as refused:
        DemoSet.load(broken, horizon=2)
    assert any(says in line for line in refused.value.problems), refused.value.problems


def test_all_problems_are_listed(broken):
    edit_info(broken, total_frames=99)
    edit_table(data_file(broken), "observation.state", set_row(0, [float("inf")] * 3))
    edit_table(data_file(broken), "index", set_row(3, 2))
    with pytest.raises(DatasetError) as refused:
        DemoSet.load(broken, horizon=2)
    assert len(refused.value.problems) == 3


def test_an_image_that_cannot_be_decoded_is_named(broken):
    key = "observation.images.side"
    edit_table(data_file(broken), key, set_row(9, {"bytes": b"no image", "path": None}))
    with pytest.raises(DatasetError, match="frame 9 of camera 'side'"):
        DemoSet.load(broken, horizon=2)


def test_a_short_video_is_refused(video, tmp_path):
    root = shutil.copytree(video[0], tmp_path / "dataset")
    one = tmp_path / "one"
    write_demos(one, "local/demos", META, [episode(0, 4)], video=True)
    film = "videos/observation.images.front/chunk-000/file-000.mp4"
    shutil.copy(one / film, root / film)
    with pytest.raises(DatasetError, match="camera 'front' has 4 frames; the data files have 14"):
        DemoSet.load(root, horizon=2)
    (root / film).write_bytes(b"no video")
    with pytest.raises(DatasetError, match=r"file-000\.mp4 cannot be decoded"):
        DemoSet.load(root, horizon=2)


def test_a_recording_survives_the_disk(tmp_path):
    states, actions = np.arange(15, dtype=np.float32).reshape(5, 3), np.ones((5, 2), np.float32)
    images = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)
    attempt = DemoAttempt(2, 103, 7)
    one = DemoRecording(attempt, "success", "", 4, 0.1, {"side": list(images)}, list(states), list(actions), "push")
    one.save(tmp_path / "part.npz")
    back = Episode.load(tmp_path / "part.npz", attempt.seed)
    assert (back.task, back.seed, back.problems()) == ("push", 103, [])
    assert np.array_equal(back.state, states)
    assert np.array_equal(back.action, actions)
    assert np.array_equal(back.images["side"], images[:5]), "an image without an action is left out"
    assert [p.name for p in tmp_path.iterdir()] == ["part.npz"]


def test_a_dataset_of_an_earlier_version_is_refused_in_words(tmp_path):
    (tmp_path / "rlft.json").write_text('{"format": 1, "constant_action": [3]}')
    with pytest.raises(DatasetError, match="format 1; this version reads 2: collect the demonstrations anew, or"):
        DemoMeta.load(tmp_path)


def test_the_fingerprint_sees_cuts_and_values():
    state, action = np.arange(12, dtype=np.float32).reshape(6, 2), np.ones((6, 1), np.float32)
    whole = fingerprint([(state, action)])
    assert whole == fingerprint([(state.copy(), action.copy())])
    assert whole != fingerprint([(state[:3], action[:3]), (state[3:], action[3:])])
    assert whole != fingerprint([(state + 1e-6, action)])
