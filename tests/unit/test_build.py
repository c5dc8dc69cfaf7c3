"""The composition root: what a warm-up starts from."""

import dataclasses

import pytest
import torch

from rlft import build
from rlft.config.load import load
from rlft.data.normalize import NormStats
from rlft.errors import RlftError
from rlft.policy.weights import save_pretrained

CPU = torch.device("cpu")
STATS = NormStats(
    state_mean=(0.0, 0.0),
    state_std=(1.0, 1.0),
    action_mean=(0.0, 0.0),
    action_std=(1.0, 1.0),
    env_id="ToyReach-v0",
    control_mode="pd_ee_delta_pos",
    cameras=("top",),
)


def settings(**model):
    return load("train_sft", ["task=toy", *(f"model.{key}={value}" for key, value in model.items())])


def test_a_warm_up_takes_weights_from_a_base_and_statistics_from_its_own_data(tmp_path):
    base = build.fresh_policy(settings(), STATS, CPU)
    with torch.no_grad():
        base.model.action_in_proj.bias.add_(1.0)
    save_pretrained(base, tmp_path)
    other = dataclasses.replace(STATS, state_mean=(5.0, 5.0))
    warm = build.fresh_policy(settings(path=tmp_path), other, CPU)
    assert all(torch.equal(value, base.state_dict()[key]) for key, value in warm.state_dict().items())
    assert warm.stats == other


def test_a_base_of_other_sizes_is_refused_by_name(tmp_path):
    save_pretrained(build.fresh_policy(settings(), STATS, CPU), tmp_path)
    cfg = settings(path=tmp_path)
    cfg.model.small["vlm_width"] = 128
    with pytest.raises(RlftError, match="paligemma"):
        build.fresh_policy(cfg, STATS, CPU)


def rollout_groups(monkeypatch, *overrides):
    """The settings of each group that would be built, and whether they overlap."""
    import rlft_envs.make

    monkeypatch.setattr(rlft_envs.make, "make_vec_env", lambda settings: settings)
    cfg = load("train_rl", ["task=toy", *overrides])
    return build.build_rollout_envs(cfg), build.overlaps(cfg)


def test_with_two_workers_environments_are_decided_in_two_groups(monkeypatch):
    groups, overlap = rollout_groups(monkeypatch, "env.num_envs=5", "sim.num_workers=2", "train.batch_size=8")
    assert overlap
    assert [(g.num_envs, g.first_env, g.num_workers) for g in groups] == [(3, 0, 1), (2, 3, 1)]


@pytest.mark.parametrize(
    ("overrides", "overlap", "sizes"),
    [
        (["sim.num_workers=0"], False, [4]),
        (["sim.num_workers=1"], False, [4]),
        (["sim.num_workers=2", "sim.overlap=false"], False, [4]),
        (["sim.num_workers=2", "sim.overlap=false", "sim.num_groups=2"], False, [2, 2]),
        (["sim.num_workers=3", "sim.num_groups=3"], True, [2, 1, 1]),
        (["placement=three_gpus", "sim.num_workers=0"], True, [2, 2]),
        (["placement=one_gpu"], False, [4]),
    ],
)
def test_groups_follow_the_settings(monkeypatch, overrides, overlap, sizes):
    groups, found = rollout_groups(monkeypatch, "env.num_envs=4", "train.batch_size=8", *overrides)
    assert found is overlap
    assert [g.num_envs for g in groups] == sizes


def test_a_missing_base_is_refused_by_name(tmp_path):
    with pytest.raises(RlftError, match=r"model\.safetensors"):
        build.fresh_policy(settings(path=tmp_path / "nowhere"), STATS, CPU)
