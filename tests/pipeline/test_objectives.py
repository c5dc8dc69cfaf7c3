"""Objectives through the real stage: groups of episodes without a critic, and one of another package."""

import json

import pytest
from toy_runs import equal, scalars, train, weights

from rlft.errors import ConfigError
from rlft.run import checkpoint

GROUPS = ["algo=grpo", "env.num_envs=4", "train.options.group_size=2", "env.max_episode_len=5"]
GROUPS += ["env.reward.mode=sparse", "train.n_critic_warmup_itr=1"]  # the default: there is no critic to warm up


def leaves(tree, prefix=""):
    """Every tensor and value of nested dicts and lists, by path."""
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {path: leaf for key, value in items for path, leaf in leaves(value, f"{prefix}/{key}").items()}
    return {prefix: tree}


def test_grpo_has_no_critic_anywhere_and_goes_on_where_it_stopped(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(whole, *GROUPS, "train.n_train_itr=3")
    train(stopped, *GROUPS, "train.n_train_itr=2")
    train(stopped, *GROUPS, "train.n_train_itr=3", "resume=auto")
    states = [checkpoint.load_state(run / "rl/checkpoints/000003") for run in (whole, stopped)]
    assert set(states[0]["heads"]) == {"noise"}
    assert set(states[0]["optimizers"]) == {"actor"}
    assert not any("critic" in path for path in leaves(states[0]))
    assert equal(*(leaves(state["optimizers"]) for state in states))
    assert equal(weights(whole, 3), weights(stopped, 3))
    lines = scalars(whole)
    assert lines == scalars(stopped)
    assert not any("value" in name or "critic" in name for line in lines for name in line)
    assert sum(line["update/updates"] for line in lines) > 0
    assert 0 < max(line["group/dropped"] for line in lines) < 1
    rows = 4 * 2  # decisions of an iteration
    for line in lines:
        assert line["update/samples"] <= 2 * rows * (1 - line["group/dropped"])


def test_what_grpo_cannot_do_is_refused_before_a_simulator_starts(tmp_path):
    with pytest.raises(ConfigError, match=r"no multiple of train.options.group_size = 2"):
        train(tmp_path, *GROUPS, "env.num_envs=3")
    with pytest.raises(ConfigError, match=r"train.objective = 'grp': .* did you mean grpo"):
        train(tmp_path, "train.objective=grp")
    with pytest.raises(ConfigError, match=r"train.options = .*(has|declares) none"):
        train(tmp_path, "train.options={group_size: 2}")


def test_an_objective_of_another_package_trains(tmp_path):
    run = train(tmp_path / "run", "train.objective=reinforce:Reinforce", "train.n_train_itr=2", "train.update_epochs=1")
    assert all("reinforce/reward" in line and line["update/updates"] > 0 for line in scalars(run))
    assert json.loads((run / "rl.json").read_text())["iterations"] == 2
    states = [checkpoint.load_state(run / f"rl/checkpoints/00000{i}") for i in (1, 2)]
    assert not equal(*(leaves(state["heads"]) for state in states))
