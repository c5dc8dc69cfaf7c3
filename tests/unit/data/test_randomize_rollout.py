"""Rollouts and SFT show the policy randomised images, named by episode, decision or row."""

import logging

import pytest
import torch
from helpers.demonstrations import random_demos
from helpers.toy_world import CPU, PLACEMENT, toy_env, toy_model

from rlft.config.learning import SftConfig
from rlft.config.schema import DomainRandomizationConfig, ModelConfig
from rlft.data.normalize import NormStats
from rlft.data.randomize.randomizer import ImageRandomizer
from rlft.errors import ConfigError
from rlft.learn.sft import SftTrainer
from rlft.policy.pretrained import build_policy
from rlft.rollout.sampler import RolloutSampler
from rlft.types import CameraSettings

CAMERAS = (CameraSettings("top", 28, 28),)
MODEL = ModelConfig(small={"image_size": 28})
COLOURS = {"hue": 60.0, "brightness": 0.3}


class Recording(ImageRandomizer):
    """Remembers what it was asked."""

    def __init__(self, **changes) -> None:
        section = DomainRandomizationConfig(**(COLOURS | changes))
        super().__init__(section, seed=0, purpose="domain-randomization", device=CPU)
        self.calls = []

    def __call__(self, obs, names, moment=()):
        out = super().__call__(obs, names, moment)
        self.calls.append((list(names), moment, torch.as_tensor(obs.images["top"]), out.images["top"]))
        return out


def rollouts(*sizes, iterations=1, limit=6, reset=True, overlap=False, num_decisions=5, **changes):
    envs = [toy_env(n, limit=limit, cameras=CAMERAS, episode_ends_on_success=False) for n in sizes]
    randomizer = Recording(**changes)
    sampler = RolloutSampler(
        envs, toy_model(), PLACEMENT, seed=0, num_decisions=num_decisions, store_prefix=True, reset_each_rollout=reset,
        overlap=overlap, randomizer=randomizer,
    )  # fmt: skip
    stats = [sampler.collect(i)[1] for i in range(iterations)]
    return randomizer, stats


def seen(randomizer) -> dict[tuple, torch.Tensor]:
    """(name, moment, what was rendered) -> what the policy saw."""
    return {
        (names[row], moment, before[row].numpy().tobytes()): after[row]
        for names, moment, before, after in randomizer.calls
        for row in range(len(names))
    }


def test_names_are_iteration_environment_and_episode():
    randomizer, _ = rollouts(2, iterations=2)  # three decisions an episode, five a rollout
    names = [(names, moment) for names, moment, _, _ in randomizer.calls]
    first, second = [(0, 0, 0), (0, 1, 0)], [(0, 0, 1), (0, 1, 1)]
    assert names[:4] == [(first, (0, 0)), (first, (0, 1)), (first, (0, 2)), (first, (0, 3))]  # the last: final values
    assert names[4:7] == [(second, (0, 3)), (second, (0, 4)), (second, (0, 5))]
    assert names[7][0] == [(1, 0, 0), (1, 1, 0)]


def test_an_episode_that_runs_on_into_the_next_iteration_keeps_its_name():
    randomizer, _ = rollouts(1, iterations=2, limit=8, reset=False, num_decisions=3)
    names = [names[0] for names, moment, _, _ in randomizer.calls]
    assert names[:4] == [(0, 0, 0)] * 4  # three decisions, and the value of the open end
    assert names[4] == (0, 0, 0)
    assert (1, 0, 0) in names[5:]


@pytest.mark.parametrize("overlap", [False, True])
def test_groups_change_nothing(overlap):
    (whole, _), (split, _) = rollouts(5, iterations=2), rollouts(3, 2, iterations=2, overlap=overlap)
    a, b = seen(whole), seen(split)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_rollouts_metrics_are_logged():
    _, stats = rollouts(3, iterations=2)
    for one in stats:
        scalars = one.scalars()
        assert scalars["randomization/changed_pixels"] > 0.5
        assert scalars["randomization/mean_change"] > 1.0


def trainer(randomizer=None, **changes) -> SftTrainer:
    torch.set_num_threads(1)
    data = random_demos()
    policy = build_policy(MODEL, NormStats.from_demos(data), horizon=3, device=CPU)
    settings = {"steps": 4, "batch_size": 8, "warmup_steps": 1, "train_expert_only": True} | changes
    return SftTrainer(policy, data, SftConfig(**settings), seed=0, randomizer=randomizer)


def test_sft_draws_for_every_row_of_every_step_and_says_how_much_changed():
    randomizer = Recording()
    t = trainer(randomizer)
    scalars = [t.step() for _ in range(2)]
    assert [call[0] for call in randomizer.calls] == [[(step, row) for row in range(8)] for step in (0, 1)]
    assert all(x["randomization/changed_pixels"] > 0.5 for x in scalars)
    assert scalars[0]["loss"] != trainer().step()["loss"]


def test_a_resumed_sft_goes_on_with_the_same_images():
    whole, first, second = trainer(Recording()), trainer(Recording()), trainer(Recording())
    losses = [whole.step()["loss"] for _ in range(4)]
    assert [first.step()["loss"] for _ in range(2)] == losses[:2]
    second.policy.load_state_dict(first.policy.state_dict())
    second.load_state_dict(first.state_dict())
    assert [second.step()["loss"] for _ in range(2)] == losses[2:]


def test_prefixes_are_not_kept_of_images_that_change(caplog):
    caplog.set_level(logging.INFO)
    assert trainer().prefixes is not None
    assert trainer(Recording()).prefixes is None
    assert "because domain_randomization changes the images" in caplog.text
    assert trainer(Recording(), cache_prefix=False).prefixes is None
    with pytest.raises(ConfigError, match=r"sft\.cache_prefix=true: domain_randomization"):
        trainer(Recording(), cache_prefix=True)


def test_a_randomisation_that_changes_nothing_stops_sft():
    t = trainer(Recording(hue=0.0, brightness=1e-3))
    with pytest.raises(ConfigError, match=r"domain_randomization\.brightness: on, but not one pixel"):
        t.step()
