"""Normalisation statistics: computed right, refused when wrong, compared with where they are used."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch

from rlft.data.dataset import DemoSet
from rlft.data.episode import DemoMeta
from rlft.data.normalize import MIN_STD, NormStats, StatsError
from rlft.policy.base import normalize
from rlft.types import CameraSettings, EnvSpec

ORIGIN = {
    "env_id": "PushCube-v1",
    "control_mode": "pd_ee_delta_pos",
    "cameras": ("front",),
    "state_terms": ("tcp_pos",),
}


def make_spec(**changes):
    facts = {"env_id": "PushCube-v1", "num_envs": 2, "action_low": (-1.0, -1.0), "action_high": (1.0, 3.0)}
    facts |= {"state_dim": 3, "cameras": (CameraSettings("front", 56, 56),), "control_mode": "pd_ee_delta_pos"}
    facts |= {"control_hz": 20.0, "max_episode_steps": 50}
    return EnvSpec(**(facts | changes))


def make_stats(seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    state, actions = rng.normal(2.0, 3.0, (500, 3)), rng.uniform(-1, 1, (500, 2))
    return NormStats.from_arrays(state, actions, **ORIGIN, **kwargs), state, actions


def test_mean_and_std_of_the_data():
    stats, state, actions = make_stats()
    np.testing.assert_allclose(stats.state_mean, state.mean(axis=0))
    np.testing.assert_allclose(stats.action_std, actions.std(axis=0))
    assert (stats.state_dim, stats.act_dim) == (3, 2)


def test_quantiles_map_to_minus_one_and_one():
    stats, state, _ = make_stats(method="quantiles")
    low, high = np.quantile(state, [0.01, 0.99], axis=0)
    np.testing.assert_allclose((low - stats.state_mean) / stats.state_std, -1.0)
    np.testing.assert_allclose((high - stats.state_mean) / stats.state_std, 1.0)


def test_json_round_trip_is_exact(tmp_path):
    stats, _, _ = make_stats(fingerprint="abc")
    stats.save(tmp_path / "stats.json")
    assert NormStats.load(tmp_path / "stats.json") == stats


def test_statistics_beside_weights_of_an_earlier_version_are_read():
    stats = NormStats.from_arrays(*np.random.default_rng(0).normal(size=(2, 9, 3)), **ORIGIN, frozen_action_dims=(1,))
    old = dataclasses.asdict(stats)
    old["constant_action"] = old.pop("frozen_action_dims")
    assert NormStats.from_dict(old) == stats


def test_constant_dimensions_are_listed_unless_declared():
    state, actions = np.random.default_rng(0).normal(size=(50, 3)), np.ones((50, 2))
    actions[:, 0] = np.arange(50)
    state[:, [0, 2]] = 0.3
    with pytest.raises(StatsError, match=r"state_std .* dimensions \[0, 2\].*frozen_state_dims"):
        NormStats.from_arrays(state, actions, **ORIGIN)
    with pytest.raises(StatsError, match=r"action_std .* dimensions \[1\]"):
        NormStats.from_arrays(state, actions, **ORIGIN, frozen_state_dims=(0, 2))
    stats = NormStats.from_arrays(state, actions, **ORIGIN, frozen_state_dims=(0, 2), frozen_action_dims=(1,))
    assert stats.state_std[0] == stats.state_std[2] == stats.action_std[1] == 1.0


@pytest.mark.parametrize("mean", [0.0, 0.5, -30.0])
@pytest.mark.parametrize("method", ["mean_std", "quantiles"])
def test_the_narrowest_spread_still_normalises_in_float32(mean, method):
    least = MIN_STD * max(1.0, abs(mean))
    with pytest.raises(StatsError, match=rf"state_std is below 0.0001 x max\(1, \|mean\|\) .*mean {mean:g}"):
        NormStats((mean,), (0.9 * least,), (0.0,), (1.0,), "Env-v1", "pd", method=method)
    stats = NormStats((mean,), (least,), (0.0,), (1.0,), "Env-v1", "pd", method=method)
    x = mean + least * np.linspace(-2, 2, 401)[:, None]
    ours = normalize(torch.tensor(x, dtype=torch.float32), stats.state_mean, stats.state_std).double().numpy()
    error = np.abs(ours - (x - mean) / least).max()
    assert error < 1e-3
    assert error > 1e-5 or mean == 0.0  # the limit is where rounding begins to show


def test_a_refused_spread_says_what_to_do():
    state, actions = np.random.default_rng(0).normal(size=(1000, 2)), np.zeros((1000, 2))
    actions[:, 0], actions[:5, 1] = state[:, 0], 1.0  # opens in half a percent of the frames
    assert NormStats.from_arrays(state, actions, **ORIGIN).action_std[1] > 0.05
    said = r"action_std .* dimensions \[1\] \(mean 0, std 0\).*frozen_action_dims.*dataset\.stats_method=mean_std"
    with pytest.raises(StatsError, match=said):
        NormStats.from_arrays(state, actions, **ORIGIN, method="quantiles")
    old = dataclasses.asdict(make_stats()[0]) | {"state_std": [1.0, 1e-5, 1.0]}  # as a checkpoint might have it
    with pytest.raises(StatsError, match=r"dimensions \[1\].*run train_sft again, or .*dataset_stats=FILE"):
        NormStats.from_dict(old)


def test_another_method_is_refused():
    with pytest.raises(StatsError, match=r"method='minmax': must be one of mean_std, quantiles, bounds"):
        dataclasses.replace(make_stats()[0], method="minmax")


def test_nan_in_the_data_is_located():
    state, actions = np.ones((50, 3)), np.ones((50, 2))
    state[7, 2] = np.nan
    with pytest.raises(StatsError, match=r"state .* frame 7, dimension 2"):
        NormStats.from_arrays(state, actions, **ORIGIN)


@pytest.mark.parametrize("shape", [(0, 3), (5,)])
def test_data_without_frames_is_refused(shape):
    with pytest.raises(StatsError, match="shape"):
        NormStats.from_arrays(np.ones(shape), np.ones((5, 2)), **ORIGIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_mean": (0.0, float("nan"))}, r"action_mean is not finite in dimensions \[1\]"),
        ({"action_std": (1.0, float("inf"))}, r"action_std is not finite"),
        ({"action_std": (1.0, 0.0)}, r"action_std is below .* dimensions \[1\]"),
        ({"action_std": (1.0, -1.0)}, r"dimensions \[1\]"),
        ({"state_mean": (0.0,)}, "state_mean has 1 numbers and state_std 3"),
    ],
)
def test_broken_statistics_are_refused(change, message):
    with pytest.raises(StatsError, match=message):
        dataclasses.replace(make_stats()[0], **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state_dim": 4}, "state_dim is 3 in the statistics and 4 here"),
        ({"action_low": (-1.0,), "action_high": (1.0,)}, "act_dim is 2 .* 1 here"),
        ({"cameras": (CameraSettings("wrist", 56, 56),)}, r"cameras is \('front',\) .* \('wrist',\)"),
        ({"env_id": "PickCube-v1"}, "env_id is 'PushCube-v1' .* 'PickCube-v1'.*allow_stats_mismatch"),
        ({"control_mode": "pd_joint_pos"}, "control_mode is"),
    ],
)
def test_another_environment_is_refused_by_name_and_value(change, message):
    stats, _, _ = make_stats()
    stats.check(make_spec())
    with pytest.raises(StatsError, match=message):
        stats.check(make_spec(**change))


def test_a_state_of_the_same_width_but_other_meaning_is_refused():
    stats, _, _ = make_stats()
    stats.check(make_spec(), state_terms=["tcp_pos"])
    with pytest.raises(StatsError, match=r"state_terms is \('tcp_pos',\).*\('goal_pos',\)"):
        stats.check(make_spec(), state_terms=["goal_pos"], allow_mismatch=True)


def test_another_dataset_is_refused_or_accepted_aloud(caplog):
    stats, _, _ = make_stats(fingerprint="abc")
    stats.check(make_spec(), fingerprint="abc")
    with pytest.raises(StatsError, match="fingerprint is 'abc'"):
        stats.check(make_spec(), fingerprint="def")
    with caplog.at_level(logging.WARNING):
        stats.check(make_spec(env_id="Other-v1"), fingerprint="def", allow_mismatch=True)
    assert "env_id is 'PushCube-v1'" in caplog.text
    assert "fingerprint" in caplog.text
    with pytest.raises(StatsError, match="state_dim"):
        stats.check(make_spec(state_dim=9), allow_mismatch=True)


def test_a_dataset_brings_numbers_origin_and_declared_constants():
    state, action = torch.randn(40, 3), torch.randn(40, 2)
    action[:, 1] = -1.0
    origin = {"fingerprint": "abc", "frozen_action_dims": (1,), "seeds": (0,)}
    meta = DemoMeta(**ORIGIN, fps=20, planner="oracle", run_seed=0, **origin)
    images = {"front": torch.zeros(40, 8, 8, 3, dtype=torch.uint8)}
    demos = DemoSet(meta, images, state, action, torch.tensor([40]), ["Push."] * 40, horizon=5)
    stats = NormStats.from_demos(demos)
    stats.check(make_spec(), fingerprint="abc")
    assert (stats.action_std[1], stats.action_mean[1]) == (1.0, -1.0)
    np.testing.assert_allclose(stats.state_mean, state.double().mean(dim=0))


def test_without_data_actions_get_their_bounds_and_a_loud_warning(caplog):
    with caplog.at_level(logging.WARNING):
        stats = NormStats.from_spec(make_spec())
    assert "NO NORMALISATION STATISTICS" in caplog.text
    assert (stats.action_mean, stats.action_std) == ((0.0, 1.0), (1.0, 2.0))
    assert (stats.state_mean, stats.state_std) == ((0.0,) * 3, (1.0,) * 3)
    stats.check(make_spec())
    with pytest.raises(StatsError, match="unbounded"):
        NormStats.from_spec(make_spec(action_high=(1.0, float("inf"))))


@pytest.mark.parametrize("content", ["", "[1]", '{"state_mean": [0]}', "null"])
def test_unreadable_files_name_the_setting(content, tmp_path):
    path = tmp_path / "stats.json"
    path.write_text(content)
    with pytest.raises(StatsError, match="dataset_stats="):
        NormStats.load(path)
    with pytest.raises(StatsError, match="dataset_stats="):
        NormStats.load(tmp_path / "missing.json")


def test_unknown_fields_are_refused():
    data = json.loads(json.dumps(dataclasses.asdict(make_stats()[0])))
    with pytest.raises(StatsError, match=r"unknown fields \['state_sdt'\]"):
        NormStats.from_dict(data | {"state_sdt": [1]})
