"""The whole PPO stage with the small π0 on the toy task: bit-equal when repeated, and when stopped and continued."""

import json

import pytest
import torch
from toy_runs import equal, moved, scalars, train, weights

from rlft.errors import RlftError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "whole"
    return train(run, "train.n_train_itr=3", "train.n_critic_warmup_itr=1", "eval.num_videos=1")


def test_another_seed_gives_other_weights(whole, tmp_path):
    other = train(tmp_path, "train.n_train_itr=1", "train.n_critic_warmup_itr=1", "seed=1")
    assert not equal(weights(whole, 1), weights(other, 1))


def test_stopping_and_resuming_equals_not_stopping(whole, tmp_path):
    """Which says as well that the same seed gives the same run."""
    train(tmp_path, "train.n_train_itr=2", "train.n_critic_warmup_itr=1")
    train(tmp_path, "train.n_train_itr=3", "train.n_critic_warmup_itr=1", "resume=auto")
    assert equal(weights(whole, 3), weights(tmp_path, 3))
    assert scalars(whole) == scalars(tmp_path)
    assert scalars(whole, "eval")[-1] == scalars(tmp_path, "eval")[-1]


def test_training_changes_the_expert_and_leaves_the_frozen_prefix(whole):
    changed = moved(weights(whole, 1), weights(whole, 3))
    assert any("gemma_expert" in k for k in changed)
    assert not any(k.startswith("model.paligemma_with_expert.paligemma.") for k in changed)


def test_a_run_directory_with_checkpoints_is_not_overwritten(whole):
    with pytest.raises(RlftError, match="resume=auto"):
        train(whole, "train.n_train_itr=3")


def test_the_result_files_are_whole(whole):
    rl = json.loads((whole / "rl.json").read_text())
    assert rl["iterations"] == 3
    assert 0 < rl["env_steps"] <= 3 * 3 * 10
    evaluation = json.loads((whole / "eval_rl.json").read_text())
    assert evaluation["episodes"] == len(evaluation["per_episode"]) == 4
    assert len(list((whole / "videos").glob("rl_0_*.mp4"))) == 1


def test_recomputing_the_prefix_gives_the_same_update_as_storing_it(tmp_path):
    steps = []
    for store in ("prefix", "images"):
        run = train(tmp_path / store, "train.n_train_itr=2", f"buffer.store={store}", "train.actor_optimizer.lr=1e-5")
        before, after = weights(run, 1), weights(run, 2)
        steps.append(torch.cat([(after[k] - before[k]).flatten() for k in sorted(after) if "gemma_expert" in k]))
    assert float(steps[0].abs().max()) > 0.0
    assert float(torch.nn.functional.cosine_similarity(steps[0], steps[1], dim=0)) > 0.999


def test_the_prefix_trains_where_it_is_asked_to(tmp_path):
    run = train(tmp_path, "train.n_train_itr=2", "model.train_vlm=true")
    changed = moved(weights(run, 1), weights(run, 2))
    assert any(k.startswith("model.paligemma_with_expert.paligemma.") for k in changed)
    assert max(line["update/first_max_log_ratio"] for line in scalars(run)) < 1e-3
