"""The composition root: what SFT starts from, and the groups of a rollout."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers.plan_cases import toy_runner, toy_settings

from rlft.config.load import load
from rlft.data.dataset import DemoSet
from rlft.data.episode import DemoMeta
from rlft.data.normalize import NormStats
from rlft.errors import RlftError
from rlft.placement import overlaps
from rlft.policy.pi0.policy import Pi0Policy
from rlft.policy.pretrained import save_pretrained
from rlft.run.assembly import envs
from rlft.run.assembly.envs import build_rollout_envs, env_settings
from rlft.run.assembly.learner import build_placement
from rlft.run.assembly.policy import demo_stats, fresh_policy

CPU = torch.device("cpu")
STATS = NormStats((0.0,) * 2, (1.0,) * 2, (0.0,) * 2, (1.0,) * 2, "ToyReach-v0", "pd_ee_delta_pos", ("top",))


def settings(**model):
    return load("train_sft", ["task=toy", *(f"model.{key}={value}" for key, value in model.items())])


def test_sft_takes_weights_from_a_base_and_statistics_from_its_own_data(tmp_path):
    base = fresh_policy(settings(), STATS, CPU)
    with torch.no_grad():
        base.model.action_in_proj.bias.add_(1.0)
    save_pretrained(base, tmp_path)
    other = dataclasses.replace(STATS, state_mean=(5.0, 5.0))
    trained = fresh_policy(settings(path=tmp_path), other, CPU)
    assert all(torch.equal(value, base.state_dict()[key]) for key, value in trained.state_dict().items())
    assert trained.stats == other


def test_a_base_of_other_sizes_is_refused_by_name(tmp_path):
    save_pretrained(fresh_policy(settings(), STATS, CPU), tmp_path)
    cfg = settings(path=tmp_path)
    cfg.model.small["vlm_width"] = 128
    with pytest.raises(RlftError, match="paligemma"):
        fresh_policy(cfg, STATS, CPU)


def toy_demos(**origin):
    torch.manual_seed(0)
    origin = {"cameras": ("top",), "fingerprint": "abc"} | origin
    more = {"state_terms": ("tcp_pos",), "fps": 20, "planner": "toy", "run_seed": 0, "seeds": (0,)}
    meta = DemoMeta("ToyReach-v0", "pd_ee_delta_pos", **origin, **more)
    numbers = torch.rand(1000, 2), torch.rand(1000, 2)
    images = {"top": torch.zeros(1000, 8, 8, 3, dtype=torch.uint8)}
    return DemoSet(meta, images, *numbers, torch.tensor([1000]), ["Go."] * 1000, horizon=5)


@pytest.mark.parametrize(
    ("words", "method"),
    [
        *(([f"model.kind={kind}"], method) for kind, method in (("small", "mean_std"), ("small_pi05", "quantiles"))),
        *(([f"policy={kind}"], method) for kind, method in (("pi0", "mean_std"), ("pi05", "quantiles"))),
        (["policy=pi05", "dataset.stats_method=mean_std"], "mean_std"),
        (["model.kind=small", "dataset.stats_method=quantiles"], "quantiles"),
    ],
)
def test_statistics_are_those_of_the_kind_unless_the_setting_says_otherwise(words, method):
    stats = demo_stats(load("train_sft", [*words, "env.state_terms=[tcp_pos]"]), toy_demos())
    assert stats.method == method
    low, high = np.quantile(toy_demos().state.double().numpy(), [0.01, 0.99], axis=0)
    assert (np.allclose(stats.state_mean, (low + high) / 2)) is (method == "quantiles")


def test_statistics_of_a_file_are_taken_where_they_are_of_this_dataset(tmp_path):
    given = NormStats.from_demos(toy_demos(), method="quantiles")
    given.save(tmp_path / "stats.json")
    words = ["task=toy", f"dataset_stats={tmp_path / 'stats.json'}"]
    assert demo_stats(load("train_sft", words), toy_demos()) == given
    with pytest.raises(RlftError, match="fingerprint is 'abc' in the statistics and 'def' here"):
        demo_stats(load("train_sft", words), toy_demos(fingerprint="def"))
    with pytest.raises(RlftError, match=r"dataset\.stats_method = mean_std.*in use are quantiles"):
        demo_stats(load("train_sft", [*words, "dataset.stats_method=mean_std"]), toy_demos())


def rollout_groups(monkeypatch, *overrides):
    """The settings of each group that would be built, and whether they overlap."""
    monkeypatch.setattr(envs, "make_vec_env", lambda settings: settings)
    cfg = load("train_rl", ["task=toy", *overrides])
    return build_rollout_envs(cfg), overlaps(cfg)


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


def test_building_the_placement_names_the_policys_gpu(monkeypatch):
    named = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", named.append)
    placement = build_placement(settings(device="cuda:1"))
    assert named == [placement.policy] == [torch.device("cuda:1")]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_compiled_policy_gets_even_batches(compiled, monkeypatch):
    monkeypatch.setattr(Pi0Policy, "compile_denoise_step", lambda policy: None)  # takes a minute
    runner, _ = toy_runner(toy_settings(f"model.compile={compiled}"))
    assert runner.sampler.even_batches is compiled


@pytest.mark.parametrize(
    ("overrides", "once"), [((), True), (("env.reward.mode=sparse",), False), (("train.gamma_per=step",), False)]
)
def test_the_dense_reward_is_computed_once_a_chunk_where_only_its_sum_counts(overrides, once):
    assert env_settings(load("train_rl", ["task=toy", *overrides]), 1).reward_per_chunk is once
