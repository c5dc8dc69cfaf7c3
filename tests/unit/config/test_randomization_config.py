"""The section domain_randomization: groups, null, and settings that would do nothing."""

import pytest

from rlft.config.load import load
from rlft.config.schema import enabled_effects
from rlft.errors import ConfigError


def problems(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load("train_rl", overrides)
    return "\n".join(caught.value.problems)


def test_it_is_off_by_default_and_null_switches_a_group_off():
    assert load("train_rl").domain_randomization is None
    assert load("train_rl", ["randomization=light"]).domain_randomization.brightness == 0.1
    assert load("train_rl", ["randomization=strong", "domain_randomization=null"]).domain_randomization is None


def test_another_choice_replaces_the_plate_runs_own_whole():
    own = load("train_rl", config_name="put_on_plate_cpu").domain_randomization
    assert enabled_effects(own) == ["brightness", "contrast", "shift"]
    for choice in ("put_on_plate", "strong"):
        words = ["task=put_on_plate", f"randomization={choice}"]
        typed = load("train_rl", words, config_name="put_on_plate_cpu").domain_randomization
        assert typed == load("train_rl", words).domain_randomization


@pytest.mark.parametrize("entry", ["collect_demos", "train_sft", "train_rl", "evaluate", "plan", "report"])
def test_the_same_words_fit_every_script(entry):
    assert load(entry, ["randomization=put_on_plate"]).domain_randomization.overlay is not None


def test_a_setting_below_switches_a_section_on():
    assert load("train_rl", ["domain_randomization.hue=10"]).domain_randomization.hue == 10.0
    overlay = load("train_rl", ["domain_randomization.overlay.folder=rooms"]).domain_randomization.overlay
    assert (overlay.folder, overlay.tolerance) == ("rooms", 16)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["domain_randomization={}"], "every effect is off"),
        (["domain_randomization.probability=0.5"], "every effect is off"),
        (["randomization=light", *(f"domain_randomization.{x}=false" for x in ("rollout", "sft"))], "run nowhere"),
        (["randomization=light", "domain_randomization.cameras=[left]"], "['left']: env.cameras has base_camera"),
        (["randomization=light", "env.cameras=[]"], "there are no images"),
        (
            ["randomization=light", "sft.cache_prefix=true", "sft.train_expert_only=true"],
            "a kept prefix would show every frame as it is",
        ),
        (["domain_randomization.hue=200"], "domain_randomization.hue = 200: must be >= 0 and <= 180"),
        (["domain_randomization.brigthness=0.1"], "did you mean domain_randomization.brightness"),
        (["domain_randomization.texture={}"], "domain_randomization.texture.folder: must be given"),
        (["domain_randomization.per=step"], "one of episode, decision"),
    ],
)
def test_what_would_do_nothing_or_harm_is_refused(overrides, text):
    assert text in problems(*overrides)


def test_a_kept_prefix_is_fine_where_sft_is_not_randomised():
    words = ["randomization=light", "sft.cache_prefix=true", "sft.train_expert_only=true"]
    assert load("train_sft", [*words, "domain_randomization.sft=false"]).sft.cache_prefix is True
