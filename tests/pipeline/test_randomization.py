"""PPO on randomised images: they change, twice the same, also after a stop; the update reads what the policy saw."""

import json
import re
from pathlib import Path

import pytest
from toy_runs import TOY, equal, scalars, weights
from toy_runs import train as train_toy

from rlft.config.load import load
from rlft.errors import ConfigError
from rlft.run import stages

GROUPED = ("env.num_envs=4", "sim.num_groups=2", "env.n_steps_rollout=15", "train.batch_size=6")
SHORT = ("train.update_epochs=1", "train.n_train_itr=2")


def train(run: Path, *words: str) -> Path:
    return train_toy(run, *GROUPED, *SHORT, *words)


def same(a: Path, b: Path) -> bool:
    return equal(weights(a, 2), weights(b, 2))


@pytest.fixture(scope="module")
def randomized(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "a", "randomization=strong")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "plain")


def test_pixels_change_and_the_sheet_is_there(randomized, plain):
    for line in scalars(randomized):
        assert line["randomization/changed_pixels"] > 0.5
        assert line["randomization/mean_change"] > 1.0
    assert (randomized / "randomization_rollout.png").stat().st_size > 1000
    assert not same(randomized, plain)


def test_the_glossary_names_what_is_logged_and_no_more(randomized):
    glossary = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    chapter = re.search(r"^## randomization\n(.*?)^## ", glossary, flags=re.DOTALL | re.MULTILINE)[1]
    documented = set(re.findall(r"^\| `([^`|]*)` \|", chapter, flags=re.MULTILINE))
    logged = {name for line in scalars(randomized) for name in line if name.startswith("randomization/")}
    where_overlays_are_swapped = {"randomization/overlay_missed", "randomization/overlay_pixels"}
    assert documented == logged | where_overlays_are_swapped


@pytest.mark.parametrize("store", ["prefix", "images"])
def test_the_update_reads_what_the_policy_saw(randomized, tmp_path, store):
    """The ratio before the first step is 1 up to the rounding of another batch shape."""
    run = randomized if store == "prefix" else train(tmp_path, "randomization=strong", "buffer.store=images")
    assert max(line["update/first_max_log_ratio"] for line in scalars(run)) < 1e-4
    assert json.loads((run / "rl.json").read_text())["buffer"]["store"] == store


def test_evaluations_are_never_randomised(plain, tmp_path):
    found = []
    for overrides in ([], ["randomization=strong"]):
        run = tmp_path / str(len(overrides))
        model = f"model.path={plain}/rl/checkpoints/last/pretrained_model"
        stages.evaluate(load("evaluate", [*TOY, f"output.dir={run}", model, *overrides]))
        found.append(json.loads((run / "eval_policy.json").read_text())["per_episode"])
        assert not list(run.glob("randomization_*"))
    assert found[0] == found[1]


def test_the_same_seed_gives_the_same_run_and_a_stop_changes_nothing(randomized, tmp_path):
    assert same(randomized, train(tmp_path / "again", "randomization=strong"))
    train(tmp_path / "stopped", "randomization=strong", "train.n_train_itr=1")
    assert same(randomized, train(tmp_path / "stopped", "randomization=strong", "resume=auto"))


def test_switched_off_is_bit_equal_to_none_at_all(plain, tmp_path):
    for name, word in (("off", "domain_randomization=null"), ("sft", "domain_randomization.rollout=false")):
        run = train(tmp_path / name, "randomization=strong", word, "train.n_train_itr=1")
        assert equal(weights(plain, 1), weights(run, 1))
        assert not (run / "randomization_rollout.png").exists()
        assert not [name for line in scalars(run) for name in line if name.startswith("randomization")]


def test_a_randomisation_without_effect_stops_the_run(tmp_path):
    with pytest.raises(ConfigError, match=r"domain_randomization\.brightness: on, but not one pixel"):
        train(tmp_path, "domain_randomization.brightness=1e-3")
