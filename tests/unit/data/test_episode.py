import numpy as np
import pytest

from rlft.data.episode import DatasetError, DemoMeta, Episode, fingerprint
from rlft.types import DemoAttempt
from rlft_envs.record import DemoRecording


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
