import copy

import pytest

from rlft.config.checks import cross_checks, nearest_multiples
from rlft.config.evaluation import SuiteConfig, SuiteMemberConfig
from rlft.config.load import load
from rlft.config.schema import CameraConfig

DEFAULT = load("train_rl")


def check(**changes) -> list[str]:
    """Problems of the default settings with some changed; ``__`` stands for a dot."""
    cfg = copy.deepcopy(DEFAULT)
    for path, value in changes.items():
        *sections, name = path.split("__")
        node = cfg
        for section in sections:
            node = getattr(node, section)
        assert hasattr(node, name), path
        setattr(node, name, value)
    return cross_checks(cfg)


def one(**changes) -> str:
    problems = check(**changes)
    assert len(problems) == 1, problems
    return problems[0]


def test_the_defaults_fit_each_other():
    assert check() == []


def test_a_chunk_cannot_execute_more_than_it_predicts():
    text = one(n_action_steps=3)
    assert "n_action_steps = 3 < act_steps = 5" in text
    assert "set n_action_steps=5 or act_steps=3" in text


def test_a_rollout_is_a_whole_number_of_chunks():
    text = one(env__n_steps_rollout=102)
    assert "(102 = 20 x 5 + 2)" in text
    assert "100 or 105" in text


def test_an_episode_is_a_whole_number_of_chunks():
    text = one(env__max_episode_len=3)
    assert "env.max_episode_len = 3" in text
    assert text.endswith("the nearest that work are 5")


def test_a_batch_fits_the_rollout():
    text = one(train__batch_size=321)
    assert "100 / 5 x 16 = 320" in text
    assert "train.batch_size=320 or less, or env.num_envs=17 or more" in text
    assert check(train__batch_size=320) == []


def test_a_smaller_last_minibatch_is_fine():
    changes = {"act_steps": 2, "env__n_steps_rollout": 20, "env__max_episode_len": 20, "env__num_envs": 4}
    assert check(**changes, train__batch_size=16) == []  # 40 = 16 + 16 + 8


def test_the_remedies_of_the_messages_work():
    assert check(train__batch_size=321, env__num_envs=17) == []
    assert check(n_action_steps=3, act_steps=3, env__n_steps_rollout=99, env__max_episode_len=51) == []
    assert check(eval__episodes=112) == check(eval__episodes=128) == []


def test_a_micro_batch_is_part_of_a_batch():
    assert "train.micro_batch_size = 81 > train.batch_size = 80" in one(train__micro_batch_size=81)
    assert check(train__micro_batch_size=80) == []


def test_a_suite_has_one_member_to_compare_with_and_names_that_are_files():
    def suite(*members):
        return SuiteConfig("mine", [SuiteMemberConfig(name, group) for name, group in members])

    base = ("main", "in_distribution")
    assert check(eval__suite=suite(base, ("tables", "vision"))) == []
    assert "0 are of the group in_distribution []" in one(eval__suite=suite(("tables", "vision")))
    assert "2 are of the group in_distribution" in one(eval__suite=suite(base, ("other", "in_distribution")))
    assert "'tables' stands twice" in one(eval__suite=suite(base, ("tables", "vision"), ("tables", "execution")))
    assert "'../x' stands twice, or is no name for a file" in one(eval__suite=suite(base, ("../x", "vision")))


def test_a_label_is_no_suite():
    assert "leave out 'suite_'" in one(eval__label="suite_rl")


def test_any_number_names_an_evaluation():
    assert check(eval__seed=2**31 + 5) == []  # it is hashed with the episode's index


def test_noise_bounds_are_in_order():
    assert "below exploration.std_max" in one(exploration__std_min=0.16)
    assert "no probability density" in one(exploration__method="flow_sde", exploration__level=0.0)


def test_a_chain_draws_something():
    assert "set num_steps=2" in one(exploration__method="flow_cps", num_steps=1)
    assert check(exploration__method="flow_cps", num_steps=2) == []


def test_the_averaged_log_prob_is_over_what_the_published_code_counts():
    assert "exploration.density=executed" in one(exploration__logprob="mean")
    assert check(exploration__logprob="mean", exploration__density="executed") == []


def test_a_stored_prefix_needs_a_frozen_vlm():
    assert "buffer.store=images" in one(buffer__store="prefix", model__train_vlm=True)
    assert check(buffer__store="auto", model__train_vlm=True) == []


def test_overlap_needs_groups_and_something_beside_the_policy():
    assert "sim.num_groups = 17 > env.num_envs = 16" in one(sim__num_groups=17)
    assert "set sim.num_groups=2" in one(sim__overlap=True, sim__num_groups=1)
    assert "env.num_envs = 1" in one(sim__overlap=True, env__num_envs=1, train__batch_size=20)
    assert "set sim.num_workers=2" in one(sim__overlap=True, sim__num_workers=0)
    assert check(sim__overlap=True, sim__num_workers=0, model__device="cuda:0") == []


def test_a_prefix_that_trains_is_not_kept():
    assert "set sft.train_expert_only=true" in one(sft__cache_prefix=True)
    assert check(sft__cache_prefix=True, sft__train_expert_only=True) == []


def test_a_camera_placement_is_whole():
    eye = CameraConfig(eye=[0.0, 0.0, 1.0])
    assert "env.cameras.0.eye is given without target" in one(env__cameras=[eye])
    target = CameraConfig(target=[0.0, 0.0, 1.0])
    assert "env.cameras.0.target is given without eye" in one(env__cameras=[target])


def test_camera_names_are_distinct():
    assert "'base_camera' stands twice" in one(env__cameras=[CameraConfig(), CameraConfig()])


def test_a_policy_sees_something():
    assert check(env__cameras=[]) == []
    assert "observe nothing" in one(env__cameras=[], env__state_terms=[])
    assert "needs at least one camera" in one(env__cameras=[], model__kind="pi05")


def test_real_sizes_have_no_sizes_to_set():
    assert "model.kind=small" in one(model__kind="pi0", model__small={"depth": 2})


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 101, "a b", "a\0"])
def test_a_name_stays_inside_its_directory(name):
    assert one(name=name).startswith("name = ")
    assert one(eval__label=name).startswith("eval.label = ")


@pytest.mark.parametrize("repo_id", ["../../x", "/abs", "a/b/c", "a/..", "", "x" * 300, "a\0b", "a..b"])
def test_a_repo_id_stays_inside_its_directory(repo_id):
    assert one(dataset__repo_id=repo_id).startswith("dataset.repo_id = ")


def test_a_resume_directory_exists(tmp_path):
    assert check(resume="auto") == check(resume=str(tmp_path)) == []
    assert "expected auto, null, or a checkpoint directory" in one(resume=str(tmp_path / "nowhere"))


def test_nearest_multiples():
    assert nearest_multiples(7, 5) == "5 or 10"
    assert nearest_multiples(3, 5) == "5"
