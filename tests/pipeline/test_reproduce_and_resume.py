"""The whole PPO stage with the small π0 on the toy task: bit-equal when repeated, and when stopped and continued."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlft.config.load import load
from rlft.errors import RlftError
from rlft.run import checkpoint, stages

SMALL = [
    "task=toy",
    "env.num_envs=3",
    "env.n_steps_rollout=10",
    "env.max_episode_len=10",
    "train.batch_size=4",
    "train.update_epochs=2",
    "train.n_critic_warmup_itr=1",
    "train.skip_initial_eval=true",
    "train.val_freq=0",
    "train.save_model_freq=1",
    "eval.num_envs=2",
    "eval.episodes=4",
    "eval.num_videos=1",
    "train.actor_optimizer.lr=1e-3",
]


def train(run: Path, *overrides: str) -> None:
    torch.set_num_threads(1)
    stages.train_rl(load("train_rl", [*SMALL, f"output.dir={run}", *overrides]))


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = run / "rl" / "checkpoints" / f"{step:06d}"
    model = load_file(folder / "pretrained_model" / "model.safetensors")
    state = checkpoint.load_state(folder)
    return model | {f"critic.{k}": v for k, v in state["heads"]["critic"].items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(run, "train.n_train_itr=3")
    return run


def scalars(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(("time", "throughput"))} for line in lines]


def test_the_same_seed_gives_the_same_weights(whole, tmp_path):
    train(tmp_path / "again", "train.n_train_itr=3")
    assert equal(weights(whole, 3), weights(tmp_path / "again", 3))
    assert scalars(whole) == scalars(tmp_path / "again")


def test_another_seed_gives_others(whole, tmp_path):
    train(tmp_path / "other", "train.n_train_itr=3", "seed=1")
    assert not equal(weights(whole, 3), weights(tmp_path / "other", 3))


def test_stopping_and_resuming_equals_not_stopping(whole, tmp_path):
    run = tmp_path / "stopped"
    train(run, "train.n_train_itr=2", "train.val_freq=0")
    train(run, "train.n_train_itr=3", "resume=auto")
    assert equal(weights(whole, 3), weights(run, 3))
    assert [s for s in scalars(run) if s["stage"] == "rl"] == [s for s in scalars(whole) if s["stage"] == "rl"]


def test_training_changes_the_expert_and_leaves_the_frozen_prefix(whole):
    before, after = weights(whole, 1), weights(whole, 3)
    moved = {k for k in after if not k.startswith("critic") and not torch.equal(before[k], after[k])}
    assert any("gemma_expert" in k for k in moved)
    assert not any(k.startswith("model.paligemma_with_expert.paligemma.") for k in moved)


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
        run = tmp_path / store
        train(run, "train.n_train_itr=2", f"buffer.store={store}", "train.actor_optimizer.lr=1e-5")
        before, after = weights(run, 1), weights(run, 2)
        steps.append(torch.cat([(after[k] - before[k]).flatten() for k in sorted(after) if "gemma_expert" in k]))
    assert float(steps[0].abs().max()) > 0.0
    assert float(torch.nn.functional.cosine_similarity(steps[0], steps[1], dim=0)) > 0.999


def test_the_prefix_trains_where_it_is_asked_to(tmp_path):
    train(tmp_path / "vlm", "train.n_train_itr=2", "model.train_vlm=true")
    before, after = weights(tmp_path / "vlm", 1), weights(tmp_path / "vlm", 2)
    moved = {k for k in after if not torch.equal(before[k], after[k])}
    assert any(k.startswith("model.paligemma_with_expert.paligemma.") for k in moved)
    lines = [s for s in scalars(tmp_path / "vlm") if s["stage"] == "rl"]
    assert max(line["update/first_max_log_ratio"] for line in lines) < 1e-3
