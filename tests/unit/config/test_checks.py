import pytest

from rlft.config.checks import cross_checks, nearest_multiples
from rlft.config.load import changed, load
from rlft.config.schema import CameraConfig, SuiteConfig, SuiteMemberConfig, enabled_effects
from rlft.errors import ConfigError

DEFAULT = load("train_rl")
BASE = ("main", "in_distribution")
EYE, TARGET = CameraConfig(eye=[0.0, 0.0, 1.0]), CameraConfig(target=[0.0, 0.0, 1.0])


def check(changes) -> list[str]:
    """Problems of the default settings with some changed."""
    return cross_checks(changed(DEFAULT, changes))


def suite(*members) -> SuiteConfig:
    return SuiteConfig("mine", [SuiteMemberConfig(name, group) for name, group in members])


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"n_action_steps": 3}, ["n_action_steps = 3 < act_steps = 5", "set n_action_steps=5 or act_steps=3"]),
        ({"env.n_steps_rollout": 102}, ["(102 = 20 x 5 + 2)", "100 or 105"]),
        ({"env.max_episode_len": 3}, ["env.max_episode_len = 3", "the nearest that work are 5"]),
        ({"train.batch_size": 321}, ["100 / 5 x 16 = 320", "train.batch_size=320 or less, or env.num_envs=17 or more"]),
        ({"train.micro_batch_size": 81}, ["train.micro_batch_size = 81 > train.batch_size = 80"]),
        ({"eval.suite": suite(("tables", "vision"))}, ["0 are of the group in_distribution []"]),
        ({"eval.suite": suite(BASE, ("other", "in_distribution"))}, ["2 are of the group in_distribution"]),
        ({"eval.suite": suite(BASE, ("tables", "vision"), ("tables", "execution"))}, ["'tables' stands twice"]),
        ({"eval.suite": suite(BASE, ("../x", "vision"))}, ["'../x' stands twice, or is no name for a file"]),
        ({"eval.label": "suite_rl"}, ["leave out 'suite_'"]),
        ({"exploration.std_min": 0.16}, ["below exploration.std_max"]),
        ({"exploration.method": "flow_sde", "exploration.noise_level": 0.0}, ["no probability density"]),
        ({"exploration.method": "flow_cps", "num_steps": 1}, ["set num_steps=2"]),
        ({"exploration.logprob": "mean"}, ["exploration.density=executed"]),
        ({"buffer.store": "prefix", "model.train_vlm": True}, ["buffer.store=images"]),
        ({"sim.num_groups": 17}, ["sim.num_groups = 17 > env.num_envs = 16"]),
        ({"sim.overlap": True, "sim.num_groups": 1}, ["set sim.num_groups=2"]),
        ({"sim.overlap": True, "env.num_envs": 1, "train.batch_size": 20}, ["env.num_envs = 1"]),
        ({"sim.overlap": True, "sim.num_workers": 0}, ["set sim.num_workers=2"]),
        ({"sft.cache_prefix": True}, ["set sft.train_expert_only=true"]),
        ({"env.cameras": [EYE]}, ["env.cameras.0.eye is given without target"]),
        ({"env.cameras": [TARGET]}, ["env.cameras.0.target is given without eye"]),
        ({"env.cameras": [CameraConfig(), CameraConfig()]}, ["'base_camera' stands twice"]),
        ({"env.cameras": [], "env.state_terms": []}, ["observe nothing"]),
        ({"env.cameras": [], "model.kind": "pi05"}, ["needs at least one camera"]),
        ({"model.kind": "pi0", "model.small": {"depth": 2}}, ["model.kind=small"]),
        ({"resume": "no/such/directory"}, ["expected auto, null, or a checkpoint directory"]),
    ],
)
def test_settings_that_do_not_fit_are_told_with_what_would(changes, texts):
    (problem,) = check(changes)
    assert all(text in problem for text in texts), problem


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train.batch_size": 320},
        {"act_steps": 2, "env.n_steps_rollout": 20, "env.max_episode_len": 20, "train.batch_size": 48},  # 160: 16 left
        {"train.batch_size": 321, "env.num_envs": 17},
        {"n_action_steps": 3, "act_steps": 3, "env.n_steps_rollout": 99, "env.max_episode_len": 51},
        {"eval.episodes": 112},
        {"eval.seed": 2**31 + 5},  # it is hashed with the episode's index
        {"train.micro_batch_size": 80},
        {"eval.suite": suite(BASE, ("tables", "vision"))},
        {"exploration.method": "flow_cps", "num_steps": 2},
        {"exploration.logprob": "mean", "exploration.density": "executed"},
        {"buffer.store": "auto", "model.train_vlm": True},
        {"sim.overlap": True, "sim.num_workers": 0, "model.device": "cuda:0"},
        {"sft.cache_prefix": True, "sft.train_expert_only": True},
        {"env.cameras": []},
        {"resume": "auto"},
        {"resume": "."},
    ],
)
def test_the_defaults_and_the_remedies_of_the_messages_work(changes):
    assert check(changes) == []


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 101, "a b", "a\0"])
@pytest.mark.parametrize("key", ["name", "eval.label"])
def test_a_name_stays_inside_its_directory(key, name):
    (problem,) = check({key: name})
    assert problem.startswith(f"{key} = ")


@pytest.mark.parametrize("repo_id", ["../../x", "/abs", "a/b/c", "a/..", "", "x" * 300, "a\0b", "a..b"])
def test_a_repo_id_stays_inside_its_directory(repo_id):
    (problem,) = check({"dataset.repo_id": repo_id})
    assert problem.startswith("dataset.repo_id = ")


def test_nearest_multiples():
    assert (nearest_multiples(7, 5), nearest_multiples(3, 5)) == ("5 or 10", "5")


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
