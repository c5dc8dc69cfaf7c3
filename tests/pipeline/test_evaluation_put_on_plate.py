"""The out-of-distribution suite on the simulator itself: shortened to three members of a few steps each."""

import json

import numpy as np
import pytest
from assets_at import assets_root

from rlft.config.load import changed, load
from rlft.policy.pretrained import save_pretrained
from rlft.report.build import build_report
from rlft.run import stages
from rlft.run.assembly.envs import build_eval_env
from rlft.run.assembly.learner import build_placement
from rlft.run.assembly.policy import build_policy

pytestmark = pytest.mark.simulator

MEMBERS = ("main", "vision_whole_05", "ee_pose")
SMALL = ["suite=put_on_plate_ood", "sim.num_workers=0", "env.max_episode_len=4", "env.n_steps_rollout=4"]
SMALL += ["train.batch_size=4", "eval.num_envs=2", "eval.episodes=2", "eval.num_videos=1", "eval.label=tiny"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The suite's directory, and the settings of the run. The policy is of Single-v1, as no member is."""
    root, directory = assets_root(), tmp_path_factory.mktemp("ood")
    fresh = load("evaluate", [*SMALL, f"assets.root={root}"], config_name="put_on_plate_cpu")
    fresh = changed(fresh, {"eval.suite": None})
    env = build_eval_env(fresh)
    (directory / "pretrained_model").mkdir()
    policy = build_policy(fresh, env.spec, build_placement(fresh))
    save_pretrained(policy, directory / "pretrained_model")
    env.close()
    more = [f"assets.root={root}", f"model.path={directory / 'pretrained_model'}", f"output.dir={directory / 'run'}"]
    cfg = load("evaluate", [*SMALL, *more], config_name="put_on_plate_cpu")
    members = [member for member in cfg.eval.suite.members if member.name in MEMBERS]
    cfg = changed(cfg, {"eval.suite.members": members})
    stages.evaluate(cfg)
    return directory / "run", cfg


def result_of(directory, member):
    return json.loads((directory / "suites" / "tiny" / f"eval_{member}.json").read_text())


def test_every_member_runs_to_the_limit_with_labels_metrics_and_a_video(run):
    directory, _ = run
    table = json.loads((directory / "eval_suite_tiny.json").read_text())
    assert [row["name"] for row in table["rows"]] == list(MEMBERS)
    assert table["unequal"] == {}
    for member in MEMBERS:
        result = result_of(directory, member)
        assert result["protocol"]["episode_end"] == "time_limit"
        assert [e["steps"] for e in result["per_episode"]] == [4, 4]
        assert set(result["strata"]) == {"object", "plate", "table", "variant"}
        assert {"is_src_obj_grasped", "src_on_target"} <= set(result["metrics"])
        assert len(list((directory / "suites" / "tiny" / "videos").glob(f"{member}_0_*.mp4"))) == 1
    assert "Out of distribution" in build_report(directory).read_text()


def test_configurations_beyond_31_bits_are_reached(run):
    directory, _ = run
    assert max(e["configuration_id"] for e in result_of(directory, "ee_pose")["per_episode"]) > 2**31


def test_the_picture_of_a_vision_member_is_another(run):
    """The video's first frames: the same object, plate and table, with a texture over the whole picture."""
    import av

    videos = run[0] / "suites" / "tiny" / "videos"

    def first_frame(member):
        with av.open(next(videos.glob(f"{member}_0_*.mp4"))) as video:
            return next(video.decode(video=0)).to_ndarray(format="rgb24")

    plain, blended = (first_frame(member) for member in MEMBERS[:2])
    assert plain.shape == blended.shape == (168, 224, 3)
    assert np.abs(plain.astype(float) - blended).mean() > 10


def test_what_is_done_is_kept(run, caplog):
    directory, cfg = run
    before = {member: result_of(directory, member) for member in MEMBERS}
    (directory / "suites" / "tiny" / "eval_ee_pose.json").unlink()
    with caplog.at_level("INFO"):
        stages.evaluate(cfg)
    kept = [record.args[0] for record in caplog.records if "done already" in record.getMessage()]
    assert kept == ["main", "vision_whole_05"]
    assert result_of(directory, "ee_pose")["per_episode"] == before["ee_pose"]["per_episode"]
