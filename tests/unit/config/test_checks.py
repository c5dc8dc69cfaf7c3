import pytest

from rlft.config.checks import cross_checks, nearest_multiples
from rlft.config.load import changed, load
from rlft.config.schema import CameraConfig, SuiteConfig, SuiteMemberConfig

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
