"""Objectives through the real stage: groups of episodes without a critic, and one of another package."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_reproduce_and_resume import SMALL, scalars

from rlft.config.load import load
from rlft.errors import ConfigError
from rlft.run import checkpoint, stages

PLUGINS = Path(__file__).parents[1] / "plugins"
GROUPS = [
    "algo=grpo",
    "env.num_envs=4",
    "train.options.group_size=2",
    "env.max_episode_len=5",
    "env.reward.mode=sparse",
]


def train(run: Path, *overrides: str) -> None:
    torch.set_num_threads(1)
    stages.train_rl(load("train_rl", [*SMALL, f"output.dir={run}", *overrides]))


def leaves(tree, prefix=""):
    """Every tensor and value of nested dicts and lists, by path."""
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {path: leaf for key, value in items for path, leaf in leaves(value, f"{prefix}/{key}").items()}
    return {prefix: tree}


def same(a, b) -> bool:
    def alike(x, y):
        return torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y

    return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)


def test_grpo_has_no_critic_anywhere_and_goes_on_where_it_stopped(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(whole, *GROUPS, "train.n_train_itr=3")
    train(stopped, *GROUPS, "train.n_train_itr=2")
    train(stopped, *GROUPS, "train.n_train_itr=3", "resume=auto")
    states = [checkpoint.load_state(run / "rl/checkpoints/000003") for run in (whole, stopped)]
    assert set(states[0]["heads"]) == {"noise"}
    assert set(states[0]["optimizers"]) == {"actor"}
    assert not any("critic" in path for path in leaves(states[0]))
    kept = [leaves({key: state[key] for key in ("heads", "optimizers")}) for state in states]
    assert same(*kept)
    model = "rl/checkpoints/000003/pretrained_model/model.safetensors"
    assert same(*(load_file(run / model) for run in (whole, stopped)))
    lines = [[line for line in scalars(run) if line["stage"] == "rl"] for run in (whole, stopped)]
    assert lines[0] == lines[1]
    assert not any("value" in name or "critic" in name for line in lines[0] for name in line)
    assert sum(line["update/updates"] for line in lines[0]) > 0
    assert 0 < max(line["group/dropped"] for line in lines[0]) < 1
    rows = 4 * 2  # decisions of an iteration
    for line in lines[0]:
        assert line["update/samples"] <= 2 * rows * (1 - line["group/dropped"])


def test_what_grpo_cannot_do_is_refused_before_a_simulator_starts(tmp_path):
    with pytest.raises(ConfigError, match=r"no multiple of train.options.group_size = 2"):
        train(tmp_path, *GROUPS, "env.num_envs=3")
    with pytest.raises(ConfigError, match=r"train.objective = 'grp': .* did you mean grpo"):
        train(tmp_path, "train.objective=grp")
    with pytest.raises(ConfigError, match=r"train.options = .*(has|declares) none"):
        train(tmp_path, "train.options={group_size: 2}")


def test_an_objective_of_another_package_trains(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(PLUGINS)
    train(tmp_path / "run", "train.objective=reinforce:Reinforce", "train.n_train_itr=2", "train.update_epochs=1")
    lines = [line for line in scalars(tmp_path / "run") if line["stage"] == "rl"]
    assert all("reinforce/reward" in line and line["update/updates"] > 0 for line in lines)
    assert json.loads((tmp_path / "run" / "rl.json").read_text())["iterations"] == 2
    states = [checkpoint.load_state(tmp_path / f"run/rl/checkpoints/00000{i}") for i in (1, 2)]
    assert not same(*(leaves(state["heads"]) for state in states))
