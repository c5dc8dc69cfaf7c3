"""The evaluate command on the toy task: result, videos of failures, a suite that is resumed, and its report."""

import json
import shutil

import pytest

from rlft.config.load import changed, load
from rlft.config.schema import SuiteConfig, SuiteMemberConfig
from rlft.errors import RlftError
from rlft.policy import pretrained
from rlft.report.build import build_report
from rlft.run import stages
from rlft.run.assembly.envs import build_eval_env
from rlft.run.assembly.evaluation import member_settings
from rlft.run.assembly.learner import build_placement
from rlft.run.assembly.policy import build_policy

SMALL = ["task=toy", "env.make_kwargs={numbered: true}", "eval.num_envs=3", "eval.episodes=8", "eval.num_videos=3"]
SMALL += ["eval.select=stratified"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A policy of random weights, as training would leave it."""
    cfg = load("evaluate", SMALL)
    env = build_eval_env(cfg)
    path = tmp_path_factory.mktemp("checkpoint") / "pretrained_model"
    path.mkdir()
    pretrained.save_pretrained(build_policy(cfg, env.spec, build_placement(cfg)), path)
    return path


def settings(checkpoint, directory, *more):
    return load("evaluate", [*SMALL, f"model.path={checkpoint}", f"output.dir={directory}", *more])


def read(path):
    return json.loads(path.read_text())


def test_an_evaluation_leaves_protocol_strata_and_videos_of_failures(checkpoint, tmp_path):
    stages.evaluate(settings(checkpoint, tmp_path, "eval.label=sft", "eval.episode_end=time_limit"))
    result = read(tmp_path / "eval_sft.json")
    assert result["protocol"]["episode_end"] == "time_limit"
    assert {e["steps"] for e in result["per_episode"]} == {20}
    assert sorted(row["episodes"] for row in result["strata"]["start"]) == [2, 2, 2, 2]
    assert len({e["configuration_id"] for e in result["per_episode"]}) == 8
    failed = [e["index"] for e in result["per_episode"] if not e["success_once"]][:3]
    assert sorted(p.name for p in (tmp_path / "videos").iterdir()) == sorted(f"sft_{i}_failure.mp4" for i in failed)
    # Another policy under the same protocol also records what was recorded before: a pair to look at.
    stages.evaluate(settings(checkpoint, tmp_path, "eval.label=rl", "eval.episode_end=time_limit", "eval.num_envs=8"))
    assert read(tmp_path / "eval_rl.json")["protocol_hash"] == result["protocol_hash"]
    assert set(failed) <= {int(p.name.split("_")[1]) for p in (tmp_path / "videos").glob("rl_*")}
    page = build_report(tmp_path).read_text()
    assert "by start" in page
    assert "Rollouts side by side" in page


def test_a_suite_is_one_command_and_goes_on_where_it_stopped(checkpoint, tmp_path, caplog):
    def run(*more):
        cfg = settings(checkpoint, tmp_path, "eval.label=mine", "eval.num_videos=1", *more)
        members = [SuiteMemberConfig("main"), SuiteMemberConfig("words", "semantics", instruction="go to the goal")]
        cfg = changed(cfg, {"eval.suite": SuiteConfig("toy_ood", members)})
        caplog.clear()
        with caplog.at_level("INFO"):
            stages.evaluate(cfg)
        return [record.args[0] for record in caplog.records if "done already" in record.getMessage()]

    assert run() == []
    table = read(tmp_path / "eval_suite_mine.json")
    assert [row["name"] for row in table["rows"]] == ["main", "words"]
    assert table["unequal"] == {}
    assert table["rows"][0]["protocol_hash"] != table["rows"][1]["protocol_hash"]
    assert "| words | semantics |" in (tmp_path / "eval_suite_mine.md").read_text()
    assert run("eval.num_envs=2") == ["main", "words"]
    (tmp_path / "suites" / "mine" / "eval_words.json").unlink()
    assert run() == ["main"]
    assert read(tmp_path / "eval_suite_mine.json") == table
    assert run("eval.seed=5") == []  # another protocol
    assert "Out of distribution" in build_report(tmp_path).read_text()


def test_a_suite_loads_the_policy_once_and_a_member_has_the_numbers_of_a_policy_of_its_own(
    checkpoint, tmp_path, monkeypatch
):
    loads = []
    original = pretrained.load_pretrained
    monkeypatch.setattr(pretrained, "load_pretrained", lambda *a, **k: (loads.append(a), original(*a, **k))[1])
    words = "go to the goal by the shortest way that there is"
    cfg = settings(checkpoint, tmp_path, "eval.label=mine", "eval.num_videos=0")
    members = [SuiteMemberConfig("words", "semantics", instruction=words), SuiteMemberConfig("main")]
    cfg = changed(cfg, {"eval.suite": SuiteConfig("toy_ood", members)})
    stages.evaluate(cfg)
    assert len(loads) == 1
    for name, instruction in (("words", words), ("main", None)):
        alone = settings(checkpoint, tmp_path, f"eval.label={name}", "eval.num_videos=0")
        alone = changed(alone, {"env.instruction": instruction})
        stages.evaluate(alone)
        in_suite = read(tmp_path / "suites" / "mine" / f"eval_{name}.json")
        assert in_suite["per_episode"] == read(tmp_path / f"eval_{name}.json")["per_episode"]
    assert len(loads) == 3


def test_a_suite_may_leave_the_task_that_the_policy_was_trained_on_and_nothing_else(checkpoint, tmp_path):
    """The statistics' task is put elsewhere, as it is for every member that is out of distribution."""
    elsewhere = tmp_path / "pretrained_model"
    shutil.copytree(checkpoint, elsewhere)
    edit_stats(elsewhere, env_id="Another-v1")
    with pytest.raises(RlftError, match="env_id is 'Another-v1'"):
        stages.evaluate(settings(elsewhere, tmp_path, "eval.num_videos=0"))
    cfg = settings(elsewhere, tmp_path, "eval.label=mine", "eval.num_videos=0")
    cfg = changed(cfg, {"eval.suite": SuiteConfig("toy_ood", [SuiteMemberConfig("main")])})
    stages.evaluate(cfg)
    assert read(tmp_path / "eval_suite_mine.json")["rows"][0]["episodes"] == 8
    edit_stats(elsewhere, cameras=["wrist"])
    with pytest.raises(RlftError, match=r"cameras is \('wrist',\) in the statistics and \('top',\) here"):
        stages.evaluate(cfg)


def edit_stats(directory, **changes):
    """Change the statistics of a checkpoint, and its hash of them."""
    path = directory / pretrained.POLICY
    facts = read(path)
    facts["stats"].update(changes)
    path.write_text(json.dumps(facts))
    for manifest in directory.glob("manifest.json"):
        manifest.unlink()


def test_a_member_that_cannot_be_run_is_named_before_anything_is_started(checkpoint, tmp_path):
    cfg = settings(checkpoint, tmp_path)
    lost = [SuiteMemberConfig(name, "vision", make_kwargs={"numbered": False}) for name in ("lost", "gone")]
    cfg = changed(cfg, {"eval.suite": SuiteConfig("toy_ood", [SuiteMemberConfig("main"), *lost])})
    with pytest.raises(RlftError, match=r"eval\.suite\.members lost, gone: eval\.select=stratified needs a task"):
        stages.evaluate(cfg)
    assert not (tmp_path / "suites").exists()


def test_pictures_smaller_than_the_checkpoint_expects_are_told(checkpoint, tmp_path, caplog):
    def warnings(*more):
        caplog.clear()
        stages.evaluate(settings(checkpoint, tmp_path, "eval.num_videos=0", "eval.episodes=1", *more))
        return [record.getMessage() for record in caplog.records if "enlarged" in record.getMessage()]

    assert warnings() == []
    assert len(told := warnings("env.cameras=[{name: top, height: 14, width: 14}]")) == 1
    assert "camera top is rendered at 14 x 14 and enlarged to the checkpoint's 28 x 28" in told[0]


def test_a_suite_needs_weights(tmp_path):
    cfg = load("evaluate", [*SMALL, f"output.dir={tmp_path}"])
    cfg = changed(cfg, {"eval.suite": SuiteConfig("toy_ood", [SuiteMemberConfig("main")])})
    with pytest.raises(RlftError, match=r"model\.path = null"):
        stages.evaluate(cfg)


def test_the_published_suite_loads_and_every_member_is_of_the_family():
    cfg = load("evaluate", ["suite=put_on_plate_ood"])
    members = cfg.eval.suite.members
    assert [m.group for m in members].count("vision") == 5
    assert [m.group for m in members].count("semantics") == 5
    assert [m.group for m in members].count("execution") == 3
    digits = {m.name: member_settings(cfg, m).env for m in members}
    assert {env.make_kwargs["obj_set"] for env in digits.values()} == {"train", "test"}


@pytest.mark.parametrize("words", [[], ["recipe=pi0_pi_rl"], ["task=put_on_plate"]], ids=["plate", "recipe", "task"])
def test_a_suite_has_its_own_number_of_episodes_beside_any_run_file(words):
    """The order of a defaults list decides which file wins: the suite has to stand behind the run file's own words."""
    cfg = load("evaluate", [*words, "suite=put_on_plate_ood"], config_name=None if words else "put_on_plate_cpu")
    assert (cfg.eval.episodes, cfg.eval.select, cfg.eval.episode_end) == (128, "stratified", "time_limit")
    assert len(cfg.eval.suite.members) == 14
    assert cfg.env.id.startswith("PutOnPlateInScene25")
