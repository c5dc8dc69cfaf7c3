"""The evaluate command on the toy task: result, videos of failures, a suite that is resumed, and its report."""

import json

import pytest

from rlft import build, stages
from rlft.config.evaluation import SuiteConfig, SuiteMemberConfig
from rlft.config.load import load
from rlft.errors import RlftError
from rlft.report.build import build_report

SMALL = (
    "task=toy",
    "env.make_kwargs={numbered: true}",
    "eval.num_envs=3",
    "eval.episodes=8",
    "eval.num_videos=3",
    "eval.select=stratified",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A policy of random weights, as training would leave it."""
    from rlft.policy.weights import save_pretrained

    cfg = load("evaluate", SMALL)
    build.settle_cameras(cfg)
    env = build.build_eval_env(cfg)
    path = tmp_path_factory.mktemp("checkpoint") / "pretrained_model"
    path.mkdir()
    save_pretrained(build.build_policy(cfg, env.spec, build.build_placement(cfg)), path)
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
    assert sorted(row["episodes"] for row in result["strata"]["object"]) == [2, 2, 2, 2]
    assert len({e["episode_id"] for e in result["per_episode"]}) == 8
    failed = [e["index"] for e in result["per_episode"] if not e["success_once"]][:3]
    assert sorted(p.name for p in (tmp_path / "videos").iterdir()) == sorted(f"sft_{i}_failure.mp4" for i in failed)
    # Another policy under the same protocol also records what was recorded before: a pair to look at.
    stages.evaluate(settings(checkpoint, tmp_path, "eval.label=rl", "eval.episode_end=time_limit", "eval.num_envs=8"))
    assert read(tmp_path / "eval_rl.json")["protocol_hash"] == result["protocol_hash"]
    assert set(failed) <= {int(p.name.split("_")[1]) for p in (tmp_path / "videos").glob("rl_*")}
    page = build_report(tmp_path).html.read_text()
    assert "by object" in page
    assert "Rollouts side by side" in page


def test_a_suite_is_one_command_and_goes_on_where_it_stopped(checkpoint, tmp_path, caplog):
    def run(*more):
        cfg = settings(checkpoint, tmp_path, "eval.label=mine", "eval.num_videos=1", *more)
        members = [SuiteMemberConfig("main"), SuiteMemberConfig("words", "semantics", instruction="go to the goal")]
        cfg.eval.suite = SuiteConfig("toy_ood", members)
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
    assert "Out of distribution" in build_report(tmp_path).html.read_text()


def test_a_suite_needs_weights(tmp_path):
    cfg = load("evaluate", [*SMALL, f"output.dir={tmp_path}"])
    cfg.eval.suite = SuiteConfig("toy_ood", [SuiteMemberConfig("main")])
    with pytest.raises(RlftError, match=r"model\.path = null"):
        stages.evaluate(cfg)


def test_the_published_suite_loads_and_every_member_is_of_the_family():
    cfg = load("evaluate", ["suite=put_on_plate_ood"])
    members = cfg.eval.suite.members
    assert [m.group for m in members].count("vision") == 5
    assert [m.group for m in members].count("semantics") == 5
    assert [m.group for m in members].count("execution") == 3
    digits = {m.name: build.member_settings(cfg, m).env for m in members}
    assert {env.make_kwargs["obj_set"] for env in digits.values()} == {"train", "test"}
