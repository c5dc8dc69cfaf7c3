"""Collection with scripted workers: order, resuming, workers that die or hang."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rlft.config.load import changed
from rlft.config.schema import CollectConfig, RunConfig
from rlft.data import crew
from rlft.data.collect import PARTS, collect
from rlft.data.crew import CollectError
from rlft.data.dataset import DatasetError, DemoSet
from rlft.data.journal import Journal, Record
from rlft.seeding import seed_for
from rlft.types import CameraSettings, EnvSettings

UNIT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    monkeypatch.setattr(crew, "WORKER", "helpers.demo_worker")
    monkeypatch.setenv("PYTHONPATH", str(UNIT))


def config(episodes=4, procs=2, **collect_settings):
    return RunConfig("test", 11, collect=CollectConfig(episodes, procs, **collect_settings))


def settings(step_timeout_s=30.0, max_restarts=1, **script):
    cameras = (CameraSettings("cam", 8, 8),)
    return EnvSettings(
        "scripted",
        "Count-v1",
        1,
        50,
        "delta",
        cameras,
        make_kwargs=script,
        step_timeout_s=step_timeout_s,
        max_restarts=max_restarts,
    )


class Seen:
    def __init__(self):
        self.reports = []

    def update(self, done, total, **figures):
        self.reports.append((done, total, figures))


def run(root, cfg=None, env=None, progress=None):
    return collect(cfg or config(), env or settings(), root, root / "dataset", progress)


def test_the_first_successes_are_kept_in_order(tmp_path):
    seen = Seen()
    result = run(tmp_path, env=settings(fail=[1, 3]), progress=seen)
    demos = DemoSet.load(tmp_path / "dataset", horizon=2)
    wanted = [seed_for(11, "collect", number) for number in (0, 2, 4, 5)]
    assert list(demos.meta.seeds) == wanted
    assert (result.episodes, result.attempts, result.success_rate) == (4, 6, pytest.approx(4 / 6))
    assert result.failures == {"executed_not_solved": [seed_for(11, "collect", n) for n in (1, 3)]}
    assert result.fingerprint == demos.meta.fingerprint
    assert demos.meta.constant_action == (2,)
    assert demos.tasks[0] == "count to three"
    assert json.loads(json.dumps(result.to_dict()))["failure_counts"] == {"executed_not_solved": 2}
    assert result.lengths["mean"] == pytest.approx(float(demos.lengths.float().mean()))
    assert not (tmp_path / PARTS).exists()
    assert seen.reports[-1] == (4, 4, {"written": 4})
    assert seen.reports[-2][:2] == (4, 4)
    assert seen.reports[-2][2]["attempts"] == 6


def test_the_number_of_processes_changes_nothing(tmp_path):
    one = run(tmp_path / "one", config(procs=1), settings(fail=[0, 2, 5]))
    three = run(tmp_path / "three", config(procs=3), settings(fail=[0, 2, 5], slow=0.05))
    assert one.fingerprint == three.fingerprint
    assert (one.attempts, one.failures) == (three.attempts, three.failures)


def test_failures_can_be_kept(tmp_path):
    result = run(tmp_path, config(keep_failures=True), settings(fail=[1]))
    assert (result.episodes, result.attempts) == (5, 5)
    assert result.success_rate == pytest.approx(0.8)


def test_too_few_successes_are_an_error_that_can_be_continued(tmp_path):
    with pytest.raises(CollectError, match=r"only 2 of collect.num_episodes=4 .* after 3 .*executed_not_solved: 1"):
        run(tmp_path, config(max_attempts=3), settings(fail=[1]))
    assert not (tmp_path / "dataset").exists()
    result = run(tmp_path, config(max_attempts=9), settings(fail=[1]))
    assert (result.episodes, result.attempts, result.resumed_attempts) == (4, 5, 3)
    assert result.fingerprint == run(tmp_path / "again", config(), settings(fail=[1])).fingerprint


def test_fewer_episodes_can_be_asked_for_when_continuing(tmp_path):
    with pytest.raises(CollectError):
        run(tmp_path, config(episodes=8, max_attempts=6), settings(fail=[0]))
    result = run(tmp_path, config(episodes=3), settings(fail=[0]))
    assert (result.episodes, result.attempts) == (3, 4)
    assert result.fingerprint == run(tmp_path / "again", config(episodes=3), settings(fail=[0])).fingerprint


def test_a_killed_collection_goes_on_where_it_was(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from data import test_collect as t; from pathlib import Path\n"
        "t.crew.WORKER = 'helpers.demo_worker'\n"
        "t.run(Path(sys.argv[2]), t.config(episodes=12), t.settings(fail=[2], slow=0.2))"
    )
    killed = subprocess.Popen([sys.executable, "-c", script, str(UNIT), str(tmp_path)], start_new_session=True)
    path = tmp_path / PARTS / "attempts.jsonl"
    deadline = time.monotonic() + 60
    while not (path.is_file() and path.read_text().count("\n") > 3):
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    with path.open("a") as file:
        file.write('{"number": 99, "se')  # as if the kill had hit a write
    result = run(tmp_path, config(episodes=12), settings(fail=[2], slow=0.2))
    assert result.resumed_attempts >= 3
    whole = run(tmp_path / "whole", config(episodes=12), settings(fail=[2]))
    assert (result.fingerprint, result.failures) == (whole.fingerprint, whole.failures)


def test_other_settings_do_not_continue_a_collection(tmp_path):
    with pytest.raises(CollectError):
        run(tmp_path, config(max_attempts=1))
    with pytest.raises(DatasetError, match=r"action_noise was 0.0 in the interrupted collection and is 0.5 now"):
        run(tmp_path, config(action_noise=0.5))


def test_a_collection_that_lacked_its_assets_goes_on_once_they_are_somewhere(tmp_path):
    """Who collects without assets is told to download them, and types the same words again."""
    with pytest.raises(CollectError):
        run(tmp_path, config(max_attempts=1))
    somewhere = dataclasses.replace(settings(), assets_root=str(tmp_path / "assets"))
    assert run(tmp_path, env=somewhere).resumed_attempts == 1


def test_an_existing_dataset_is_never_overwritten(tmp_path):
    run(tmp_path, config(episodes=1))
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "dataset").rglob("*"))
    with pytest.raises(DatasetError, match=r"exists"):
        run(tmp_path)
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "dataset").rglob("*")) == before


def test_a_worker_that_dies_is_replaced_and_its_attempt_made_again(tmp_path, caplog):
    marks = tmp_path / "marks"
    marks.mkdir()
    result = run(tmp_path, env=settings(die={"1": 1}, marks=str(marks)))
    assert (result.episodes, result.attempts, result.failures) == (4, 4, {})
    assert f"ended with status 7 in attempt 1, seed {seed_for(11, 'collect', 1)}" in caplog.text
    assert result.fingerprint == run(tmp_path / "again").fingerprint


def test_an_attempt_that_ends_two_workers_is_given_up(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    result = run(tmp_path, env=settings(die={"1": 9}, marks=str(marks)))
    assert result.failures == {"simulator_error": [seed_for(11, "collect", 1)]}
    assert (result.episodes, result.attempts) == (4, 5)


def test_a_worker_that_hangs_is_replaced(tmp_path, caplog):
    marks = tmp_path / "marks"
    marks.mkdir()
    result = run(tmp_path, env=settings(step_timeout_s=1.0, hang={"2": 1}, marks=str(marks)))
    assert (result.episodes, result.failures) == (4, {})
    assert "was silent for" in caplog.text


def test_a_task_without_planner_says_so(tmp_path):
    with pytest.raises(CollectError, match=r"has no motion planner"):
        run(tmp_path, env=settings(refuse="env.id='X' has no motion planner"))


def test_workers_that_never_stand_end_the_collection(tmp_path):
    with pytest.raises(CollectError, match=r"do not start .*status 9"):
        run(tmp_path, config(procs=1), settings(stillborn=True))


def test_no_process_outlives_its_crew(tmp_path):
    with crew.Crew(settings(), {}, 2) as workers:
        processes = [worker.process for worker in workers._workers]
        assert all(process.poll() is None for process in processes)
    assert all(process.poll() is not None for process in processes)


def test_a_part_that_is_gone_is_named(tmp_path):
    journal = Journal.open(tmp_path, {"seed": 1})
    record = Record(0, 5, "success", 3, 3, 0.1, "")
    journal.add(record, None)
    with pytest.raises(DatasetError, match=r"attempt_000000.npz cannot be read"):
        Journal.open(tmp_path, {"seed": 1}).episode(record)


def test_demonstrations_longer_than_the_time_limit_are_reported(tmp_path, caplog):
    cfg = changed(config(), {"env.max_episode_len": 2})
    result = run(tmp_path, cfg)
    longer = np.sum([n > 2 for n in DemoSet.load(tmp_path / "dataset", 1).lengths.tolist()])
    assert result.longer_than_limit == longer > 0
    assert "more steps than env.max_episode_len=2" in caplog.text


def test_the_toy_task_is_demonstrated_by_the_real_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "WORKER", "rlft_tasks.planners.worker")
    env = EnvSettings("toy", "ToyReach-v0", 1, 50, "pd_ee_delta_pos", (CameraSettings("cam", 16, 16),))
    result = run(tmp_path, config(procs=1), env)
    demos = DemoSet.load(tmp_path / "dataset", horizon=3)
    assert (result.episodes, result.success_rate) == (4, 1.0)
    assert demos.meta.planner == "rlft_tasks.toy:ToyExpert"
    assert demos.action.abs().max() <= 0.8 + 1e-6
    longest = int(demos.lengths.max())
    assert int(demos.lengths.min()) < longest
    shorter = run(tmp_path / "shorter", config(procs=1, max_steps=longest - 1), env)
    assert shorter.failures["too_slow"]
    assert shorter.lengths["max"] < longest
    # Actions lead from one recorded position to the next: what was recorded is what was executed.
    moved = demos.state[1:] - demos.state[:-1]
    inside = demos.episode[1:] == demos.episode[:-1]
    assert np.allclose(moved[inside].numpy(), 0.12 * demos.action[:-1][inside].numpy(), atol=1e-5)
