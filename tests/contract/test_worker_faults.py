"""A worker that dies, hangs or raises is named, replaced, and costs its own episodes only."""

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faulty_toy import FAULTY
from vec_env_factories import TOY, A, E

from rlft_envs.errors import EnvSetupError, WorkerError
from rlft_envs.simulator import make_vec_env

BAD_SEED = 666


def still(n=E):
    return np.zeros((n, A, 2), np.float32)


@pytest.fixture
def pool():
    """Makes two workers of two environments; the episode BAD_SEED fails, once if a marker directory is given."""
    made = []

    def make(tmp_path=None, *, kind=None, at_step=7, max_restarts=2, timeout=20.0, num_workers=2, **changes):
        fault = {"kind": kind, "seed": BAD_SEED, "at_step": at_step}
        if tmp_path is not None:
            fault["marker"] = str(tmp_path / "fired")
        if kind is not None:
            changes |= {"simulator": FAULTY, "make_kwargs": {"fault": fault}}
        limits = {"max_restarts": max_restarts, "step_timeout_s": timeout, "num_workers": num_workers}
        made.append(make_vec_env(replace(TOY, **limits, **changes)))
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *(("raise", "raised"), ("exit", "died (exit status 7)"), ("kill", "died (signal 9, SIGKILL)")),
        ("hang", "hung (no answer within 1 s"),
    ],
)
def test_a_fault_in_a_step_costs_the_episodes_of_that_worker_only(kind, how, caplog, pool):
    env = pool(kind=kind, timeout=1.0 if kind == "hang" else 20.0)
    before = env.reset(range(E), [1, 2, BAD_SEED, 4])
    env.step_chunk(still())
    with caplog.at_level(logging.ERROR):
        step = env.step_chunk(still())
    assert f"worker 1 {how}" in caplog.text
    assert f"in step, envs [2, 3], seeds [{BAD_SEED}, 4], episode steps [5, 5]" in caplog.text
    if kind == "raise":
        assert f"environment 2 raised in step 6, seed {BAD_SEED}" in caplog.text
        assert "told to fail" in caplog.text
    if kind == "hang":
        assert "_fail_if_told" in caplog.text  # where it hung
    assert step.invalid.tolist() == [False, False, True, True]
    assert step.ended.tolist() == [False, False, True, True]
    assert step.n_executed.tolist() == [A, A, 0, 0]
    assert not step.rewards[2:].any()
    still_lost = env.step_chunk(still())
    assert still_lost.invalid.tolist() == [False, False, True, True]
    assert still_lost.n_executed.tolist() == [A, A, 0, 0]
    again = env.reset([2, 3], [3, 4])
    assert np.array_equal(again.state[1], before.state[3])
    assert env.step_chunk(still()).n_executed.tolist() == [A] * E


@pytest.mark.parametrize(("end", "said"), [(signal.SIGKILL, ""), (signal.SIGSEGV, "Fatal Python error: Segmentation")])
def test_a_worker_ended_from_outside(end, said, caplog, pool):
    env = pool()
    env.reset(range(E), range(E))
    os.kill(env._links[0]._process.pid, end)
    step = env.step_chunk(still())
    assert f"worker 0 died (signal {end.value}, {end.name}) in step, envs [0, 1], seeds [0, 1]" in caplog.text
    assert said in caplog.text
    assert step.invalid.tolist() == [True, True, False, False]


def test_a_reset_is_tried_again_and_its_neighbour_is_lost(tmp_path, caplog, pool):
    env = pool(tmp_path, kind="kill", at_step=0)
    env.reset(range(E), range(E))
    env.step_chunk(still())
    obs = env.reset([2], [BAD_SEED])
    assert f"worker 1 died (signal 9, SIGKILL) in reset, envs [2, 3], seeds [{BAD_SEED}, 3]" in caplog.text
    assert np.isfinite(obs.state).all()
    step = env.step_chunk(still())
    assert step.invalid.tolist() == [False, False, False, True]
    assert step.n_executed.tolist() == [A, A, A, 0]


def test_a_fault_that_comes_back_ends_the_run(pool):
    env = pool(kind="raise", at_step=0, max_restarts=1)
    with pytest.raises(WorkerError, match=r"(?s)worker 0 raised in reset.*told to fail.*restarted 1 times"):
        env.reset(range(E), [BAD_SEED, 1, 2, 3])
    env.close()


def test_an_ended_episode_is_not_lost_with_its_worker(pool):
    env = pool(max_episode_steps=A)
    env.reset(range(E), range(E))
    end = env.step_chunk(still())
    assert end.truncated.all()
    os.kill(env._links[0]._process.pid, signal.SIGKILL)
    env.reset([0], [9])
    step = env.step_chunk(still())
    assert step.truncated.tolist() == [True] * E
    assert not step.invalid.any()
    assert step.n_executed.tolist() == [A, 0, 0, 0]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["nan_reward", "nan_state"])
def test_numbers_that_are_not_finite_invalidate_the_episode(kind, workers, pool):
    env = pool(kind=kind, num_workers=workers)
    env.reset(range(E), [1, BAD_SEED, 3, 4])
    assert not env.step_chunk(still()).invalid.any()
    step = env.step_chunk(still())
    assert step.invalid.tolist() == [False, True, False, False]
    assert np.isfinite(step.rewards).all()
    assert np.isfinite(step.obs.state).all()
    assert np.isfinite(step.obs.privileged).all()
    env.reset([1], [5])
    assert not env.step_chunk(still()).invalid.any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state_terms": ("tcp_poss",)}, "did you mean tcp_pos"),
        ({"make_kwargs": {"wind": lambda: 3}}, "make_kwargs = .* cannot be sent to a worker"),
    ],
)
def test_settings_that_cannot_be_built_or_sent_are_refused(changes, said):
    with pytest.raises(EnvSetupError, match=said):
        make_vec_env(replace(TOY, num_workers=2, **changes))


def test_recording_goes_on_after_a_restart(pool):
    env = pool()
    env.reset(range(E), range(E))
    env.record([0])
    env.step_chunk(still())
    os.kill(env._links[0]._process.pid, signal.SIGKILL)
    env.step_chunk(still())
    env.reset([0, 1], [0, 1])
    env.step_chunk(still())
    assert len(env.take_frames(0)) == A


@pytest.mark.parametrize(
    ("end", "how"), [(signal.SIGKILL, "died (signal 9, SIGKILL)"), (signal.SIGSTOP, "hung (no answer within 1 s)")]
)
def test_a_worker_that_fails_when_it_owes_frames_costs_the_frames(end, how, caplog, monkeypatch, pool):
    env = pool(timeout=1.0, max_episode_steps=400)
    link = env._links[0]
    env.reset(range(E), range(E))
    env.record([0])
    for _ in range(60):
        env.step_chunk(still())

    def send(message, original=link.send):
        if message.get("op") != "take_frames":
            return original(message)
        if end == signal.SIGKILL:  # the frames are more than a socket holds: it dies in the middle of them
            original(message)
            time.sleep(0.5)
        link._process.send_signal(end)
        if end == signal.SIGSTOP:
            original(message)
        return None

    monkeypatch.setattr(link, "send", send)
    assert env.take_frames(0).shape == (0, 0, 0, 3)
    assert f"worker 0 {how} in take_frames, envs [0, 1], seeds [0, 1]" in caplog.text
    monkeypatch.undo()
    step = env.step_chunk(still())
    assert step.invalid.tolist() == [True, True, False, False]
    env.reset([0, 1], [0, 1])
    env.step_chunk(still())
    assert len(env.take_frames(0)) == A


def test_what_a_lost_worker_had_written_of_its_last_chunk_does_not_count(pool):
    """Environment 2 ends its chunk, and its episode; then environment 3 takes the process with it."""
    env = pool(kind="kill", at_step=1, max_episode_steps=A)
    env.reset(range(E), [1, 2, 3, BAD_SEED])
    step = env.step_chunk(np.ones((E, A, 2), np.float32))
    assert step.truncated.tolist() == [True, True, False, False]
    assert step.invalid.tolist() == [False, False, True, True]
    assert step.n_executed.tolist() == [A, A, 0, 0]
    assert not step.rewards[2:].any()
    assert step.metrics["distance"].astype(bool).tolist() == [True, True, False, False]


def test_metrics_that_change_end_the_run_in_words(tmp_path, monkeypatch, pool):
    (tmp_path / "sitecustomize.py").write_text(
        "from rlft_envs.toy import ToyEnv\n"
        "from rlft_envs.single import Outcome\n"
        "ToyEnv._advance = lambda env, action: Outcome(False, metrics={f'step {env.elapsed}': 0.0})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    env = pool()
    env.reset(range(E), range(E))
    with pytest.raises(EnvSetupError, match=r"metrics were \['step 0'\] and are \['step 1'\] now"):
        env.step_chunk(still())


def test_workers_end_with_a_killed_parent():
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import time; from dataclasses import replace; from vec_env_factories import TOY\n"
        "from rlft_envs.simulator import make_vec_env\n"
        "env = make_vec_env(replace(TOY, num_workers=2)); env.reset(range(4), range(4))\n"
        "print(*(link._process.pid for link in env._links), flush=True); time.sleep(60)\n"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, str(here), str(here.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        children = [int(word) for word in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.kill()
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in children):
        assert time.monotonic() < deadline, "workers outlived their parent"
        time.sleep(0.05)


def test_close_ends_every_worker(pool):
    env = pool()
    children = [link._process.pid for link in env._links]
    env.close()
    assert not any(_alive(pid) for pid in children)


def _alive(pid):
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_group_is_named_by_its_place_in_the_whole_rollout(caplog, pool):
    env = pool(kind="raise", first_env=8)
    env.reset(range(E), [1, 2, BAD_SEED, 4])
    env.step_chunk(still())
    with caplog.at_level(logging.ERROR):
        env.step_chunk(still())
    assert "envs [10, 11]" in caplog.text
    assert "environment 10 raised in step 6" in caplog.text
