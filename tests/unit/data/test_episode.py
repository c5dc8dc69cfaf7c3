import numpy as np

from rlft.data.episode import Episode, fingerprint


def test_a_part_survives_the_disk(tmp_path):
    state, action = np.arange(15, dtype=np.float32).reshape(5, 3), np.ones((5, 2), np.float32)
    pictures = {"side": np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)}
    one = Episode(images=pictures, state=state, action=action, task="push the cube", seed=103, success=True)
    one.save(tmp_path / "part.npz")
    back = Episode.load(tmp_path / "part.npz")
    assert (back.task, back.seed, back.success) == (one.task, one.seed, True)
    assert np.array_equal(back.state, one.state)
    assert np.array_equal(back.images["side"], one.images["side"])
    assert [p.name for p in tmp_path.iterdir()] == ["part.npz"]


def test_the_fingerprint_sees_cuts_and_values():
    state, action = np.arange(12, dtype=np.float32).reshape(6, 2), np.ones((6, 1), np.float32)
    whole = fingerprint([(state, action)])
    assert whole == fingerprint([(state.copy(), action.copy())])
    assert whole != fingerprint([(state[:3], action[:3]), (state[3:], action[3:])])
    assert whole != fingerprint([(state + 1e-6, action)])
