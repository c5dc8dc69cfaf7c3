"""One rollout is alive at a time, in memory that is allocated once and shows nothing of the rollout before."""

import gc
import weakref

import pytest
import torch
from helpers.plan_cases import toy_settings

from rlft.objective.surrogate import Advantage
from rlft.plan.meter import Meter
from rlft.policy.pi0.policy import Pi0Prefix
from rlft.rollout.buffer import ChunkRows, Rollout
from rlft.run.assembly.envs import build_rollout_envs
from rlft.run.assembly.learner import build_runner

CPU = torch.device("cpu")


def prefix(tokens, fill):
    kv = torch.full((2, 1, 2, 1, tokens, 4), float(fill))
    return Pi0Prefix(kv=kv, mask=torch.ones(2, tokens, dtype=torch.bool), state=torch.full((2, 3), float(fill)))


def fill(buffer, lengths, value):
    for t, tokens in enumerate(lengths):
        chunks = ChunkRows(torch.full((2, 1), value), torch.ones(2), *torch.zeros(3, 2, dtype=torch.bool))
        buffer.add(t, range(2), prefix=prefix(tokens, value), trace=Advantage(torch.full((2,), value)), chunks=chunks)
    buffer.assign(Advantage(torch.ones(len(lengths), 2)))
    return buffer


def test_a_reset_keeps_the_memory_and_a_shorter_prompt_shows_nothing_of_a_longer_one():
    """What is gathered is as wide as this rollout needs, as a resumed run would find it."""
    buffer = fill(Rollout(3, 2, CPU, CPU), (5, 9, 6), 9.0)
    before = {name: x.data_ptr() for name, x in buffer.prefix.tensors().items()}
    size = buffer.nbytes()
    assert buffer.rows(torch.arange(6)).prefix.tokens == 9
    buffer.reset()
    assert buffer.rows(torch.arange(6)).signal is None
    fill(buffer, (7, 3, 2), 1.0)
    assert {name: x.data_ptr() for name, x in buffer.prefix.tensors().items()} == before
    assert buffer.nbytes() == size
    fresh = fill(Rollout(3, 2, CPU, CPU), (7, 3, 2), 1.0)
    for ours, theirs in zip(buffer.rows(torch.arange(6)).tensors(), fresh.rows(torch.arange(6)).tensors()):
        assert torch.equal(ours, theirs)


def test_a_prompt_that_grows_after_a_reset_shows_nothing_of_the_rollout_before():
    buffer = fill(Rollout(2, 2, CPU, CPU), (4, 4), 9.0)
    buffer.reset()
    fill(buffer, (2, 6), 1.0)
    stored = buffer.prefix
    assert stored.kv.shape[-2] == 6
    assert stored.kv[0, ..., 2:, :].abs().max() == 0
    assert stored.mask[0].sum() == 4


class StoppedError(Exception):
    """The second iteration is done."""


def test_two_iterations_of_the_loop_hold_one_rollout(monkeypatch):
    """Whoever keeps it: rollouts by weak references when one has been filled, bytes op by op in between."""
    cfg = toy_settings(
        *("buffer.store=prefix", "env.num_envs=8", "env.n_steps_rollout=40", "train.n_train_itr=3"),
        *("train.batch_size=64", "train.micro_batch_size=16", "train.skip_initial_eval=true", "guard.probe_episodes=0"),
    )
    made, alive, grown = [], [], []

    def begin(buffer, *args, original=Rollout.__init__):
        made.append(weakref.ref(buffer))
        original(buffer, *args)

    def complete(buffer, original=Rollout.complete):
        gc.collect()
        grown.append(held.peak - tracker.before)
        alive.append(sum(found() is not None for found in made))
        original(buffer)

    class Tracker:
        before = 0

        def log(self, stage, iteration, scalars):
            self.rollout = scalars["buffer/bytes"]
            self.before = held.peak = held.alive
            if iteration == 2:
                raise StoppedError

    class Progress:
        def update(self, *_, **__): ...

    monkeypatch.setattr(Rollout, "__init__", begin)
    monkeypatch.setattr(Rollout, "complete", complete)
    envs, tracker = build_rollout_envs(cfg), Tracker()
    runner = build_runner(cfg, envs, envs[0], tracker, Progress(), StoppedError)
    with Meter() as held, pytest.raises(StoppedError):
        runner.run()
    assert alive == [1, 1]
    assert grown[1] <= grown[0] - tracker.rollout * 0.9
