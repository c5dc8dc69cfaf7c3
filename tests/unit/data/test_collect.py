"""Collection of the toy task by worker processes: order, resuming, workers that die or hang."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from faulty_toy import FAULTY

from rlft.config.load import changed
from rlft.config.schema import CollectConfig, RunConfig
from rlft.data.collect import PARTS, AttemptLog, CollectError, collect
from rlft.data.dataset import DemoSet
from rlft.data.episode import DatasetError
from rlft.seeding import seed_for
from rlft.types import AttemptRecord, CameraSettings, DemoAttempt, EnvSettings
from rlft_envs.record import RecordSettings
from rlft_envs.workers.demos import DemoPool

UNIT = Path(__file__).parents[1]
SLOW = 12  # steps in which attempts 0, 3, 7 and 11 do not come to their end, and the others below 14 do


def seed(number):
    return seed_for(11, "collect", number)


def config(episodes=4, procs=2, **collect_settings):
    return RunConfig("test", 11, collect=CollectConfig(episodes, procs, **collect_settings))


def settings(fault=None, number=1, **changes):
    """The toy; attempt ``number`` meets the fault."""
    kwargs = {"fault": {"seed": seed(number), **fault}} if fault else {}
    camera = CameraSettings("cam", 16, 16)
    env = EnvSettings("toy", "ToyReach-v0", 1, 50, "pd_ee_delta_pos", (camera,), make_kwargs=kwargs, max_restarts=1)
    return dataclasses.replace(env, **({"simulator": FAULTY} if fault else {}) | changes)


class Seen:
    def __init__(self):
        self.reports = []

    def update(self, done, total, **figures):
        self.reports.append((done, total, figures))


def run(root, cfg=None, env=None, progress=None):
    return SimpleNamespace(**collect(cfg or config(), env or settings(), root, root / "dataset", progress))


def test_the_first_successes_are_kept_in_order(tmp_path):
    seen = Seen()
    result = run(tmp_path, config(max_steps=SLOW), progress=seen)
    demos = DemoSet.load(tmp_path / "dataset", horizon=2)
    assert list(demos.meta.seeds) == [seed(number) for number in (1, 2, 4, 5)]
    assert (result.episodes, result.attempts, result.success_rate) == (4, 6, pytest.approx(4 / 6))
    assert result.failures == {"too_slow": [seed(0), seed(3)]}
    assert result.fingerprint == demos.meta.fingerprint
    assert demos.meta.planner == "rlft_tasks.toy:ToyExpert"
    assert demos.meta.versions["numpy"] == np.__version__
    assert demos.tasks[0] == "move the disc to the goal"
    assert json.loads(json.dumps(vars(result)))["failure_counts"] == {"too_slow": 2}
    assert result.lengths["mean"] == pytest.approx(float(demos.lengths.float().mean()))
    assert not (tmp_path / PARTS).exists()
    assert seen.reports[-1] == (4, 4, {"written": 4})
    assert seen.reports[-2][:2] == (4, 4)
    assert seen.reports[-2][2]["attempts"] == 6
    assert demos.action.abs().max() <= 0.8 + 1e-6
    # Actions lead from one recorded position to the next: what was recorded is what was executed.
    moved = demos.state[1:] - demos.state[:-1]
    episode = torch.arange(4).repeat_interleave(demos.lengths)
    inside = episode[1:] == episode[:-1]
    assert np.allclose(moved[inside].numpy(), 0.12 * demos.action[:-1][inside].numpy(), atol=1e-5)


def test_the_number_of_processes_changes_nothing(tmp_path):
    one, three = (run(tmp_path / str(procs), config(6, procs, max_steps=SLOW)) for procs in (1, 3))
    assert one.fingerprint == three.fingerprint
    assert (one.attempts, one.failures) == (three.attempts, three.failures)


def test_failures_can_be_kept(tmp_path):
    result = run(tmp_path, config(keep_failures=True, max_steps=SLOW))
    assert (result.episodes, result.attempts) == (6, 6)
    assert result.success_rate == pytest.approx(4 / 6)


def test_too_few_successes_are_an_error_that_can_be_continued(tmp_path):
    said = r"only 2 of collect.num_episodes=4 .* after 4 .*too_slow: 2"
    with pytest.raises(CollectError, match=said):
        run(tmp_path, config(max_attempts=4, max_steps=SLOW))
    assert not (tmp_path / "dataset").exists()
    with pytest.raises(DatasetError, match=r"action_noise was 0.0 in the interrupted collection and is 0.5 now"):
        run(tmp_path, config(action_noise=0.5, max_steps=SLOW))
    # Who collects without assets is told to download them, and types the same words again.
    somewhere = settings(assets_root=str(tmp_path / "assets"))
    result = run(tmp_path, config(max_attempts=9, max_steps=SLOW), somewhere)
    assert (result.episodes, result.attempts, result.resumed_attempts) == (4, 6, 4)
    assert result.fingerprint == run(tmp_path / "again", config(max_steps=SLOW)).fingerprint


def test_fewer_episodes_can_be_asked_for_when_continuing(tmp_path):
    with pytest.raises(CollectError):
        run(tmp_path, config(episodes=8, max_attempts=6, max_steps=SLOW))
    result = run(tmp_path, config(episodes=3, max_steps=SLOW))
    assert (result.episodes, result.attempts) == (3, 5)
    assert result.fingerprint == run(tmp_path / "again", config(episodes=3, max_steps=SLOW)).fingerprint


def test_a_killed_collection_goes_on_where_it_was(tmp_path):
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]; from data import test_collect as t; from pathlib import Path\n"
        "hangs = {'kind': 'hang', 'marker': sys.argv[1] + '/hung'}\n"
        "t.run(Path(sys.argv[1]), t.config(episodes=12, max_steps=t.SLOW), t.settings(hangs, 8))"
    )
    words = [sys.executable, "-c", script, str(tmp_path), str(UNIT), str(UNIT.parent / "plugins")]
    killed = subprocess.Popen(words, start_new_session=True)
    path = tmp_path / PARTS / "attempts.jsonl"
    deadline = time.monotonic() + 60
    while not (path.is_file() and path.read_text().count("\n") > 3 and (tmp_path / "hung").exists()):
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    with path.open("a") as file:
        file.write('{"number": 99, "se')  # as if the kill had hit a write
    hangs_no_more = settings({"kind": "hang", "marker": str(tmp_path / "hung")}, 8)
    result = run(tmp_path, config(episodes=12, max_steps=SLOW), hangs_no_more)
    assert result.resumed_attempts >= 3
    whole = run(tmp_path / "whole", config(episodes=12, max_steps=SLOW))
    assert (result.fingerprint, result.failures) == (whole.fingerprint, whole.failures)


def test_an_existing_dataset_is_never_overwritten(tmp_path):
    run(tmp_path, config(episodes=1))
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "dataset").rglob("*"))
    with pytest.raises(DatasetError, match=r"exists"):
        run(tmp_path)
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "dataset").rglob("*")) == before


@pytest.mark.parametrize(
    ("fault", "timeout", "said"),
    [({"kind": "exit"}, 30.0, "died (exit status 7)"), ({"kind": "hang"}, 1.0, "hung (no answer within 1 s)")],
)
def test_a_lost_worker_is_replaced_and_its_attempt_made_again(tmp_path, caplog, fault, timeout, said):
    once = {**fault, "marker": str(tmp_path / "fired")}
    result = run(tmp_path, env=settings(once, step_timeout_s=timeout))
    assert (result.episodes, result.attempts, result.failures) == (4, 4, {})
    assert f"{said} in attempt 1, seed {seed(1)}" in caplog.text
    assert "_fail_if_told" in caplog.text or fault["kind"] != "hang"  # where it hung
    assert result.fingerprint == run(tmp_path / "again").fingerprint


@pytest.mark.parametrize("kind", ["exit", "raise"])
def test_an_attempt_that_fails_every_time_is_given_up(tmp_path, caplog, kind):
    result = run(tmp_path, env=settings({"kind": kind}))
    assert result.failures == {"simulator_error": [seed(1)]}
    assert (result.episodes, result.attempts) == (4, 5)
    assert {"exit": "twice", "raise": "was told to fail\n"}[kind] in caplog.text  # with the worker's traceback


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"simulator": "maniskill", "env_id": "PegInsertionSide-v1"}, r"has no planner"),
        ({"state_terms": ("tcp_poss",)}, r"did you mean tcp_pos"),
        (
            {"simulator": FAULTY, "make_kwargs": {"fault": {"kind": "exit", "seed": 0, "at_step": 0}}},
            r"(?s)do not start.*status 7",
        ),
    ],
)
def test_what_no_other_seed_would_change_ends_the_collection(tmp_path, changes, said):
    with pytest.raises(CollectError, match=said):
        run(tmp_path, config(procs=1), settings(**changes))


def test_no_process_outlives_its_pool(tmp_path):
    pool = DemoPool(settings({"kind": "hang"}), RecordSettings(), 2, lambda number: tmp_path / "part.npz")
    with pool:
        attempts = iter([DemoAttempt(number, seed(number), 0) for number in (0, 1)])
        assert next(pool.run(lambda under_way: next(attempts, None))).number == 0
        processes = [link._process for link in pool._links]
        assert all(process.poll() is None for process in processes)
    assert all(process.poll() is not None for process in processes)


def test_a_part_that_is_gone_is_named(tmp_path):
    record = AttemptRecord(0, 5, "success", 3, 3, 0.1, "")
    AttemptLog(tmp_path, {"seed": 1}).add(record)
    with pytest.raises(DatasetError, match=r"attempt_000000.npz cannot be read"):
        AttemptLog(tmp_path, {"seed": 1}).episode(record)


def test_demonstrations_longer_than_the_time_limit_are_reported(tmp_path, caplog):
    cfg = changed(config(), {"env.max_episode_len": 10})
    assert run(tmp_path, cfg).longer_than_limit == 2  # those of attempts 0 and 3
    assert "more steps than env.max_episode_len=10" in caplog.text
