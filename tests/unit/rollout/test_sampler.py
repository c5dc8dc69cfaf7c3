"""Rollouts on the toy environment: reproducible, honest at episode ends, independent of their neighbours."""

import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch
from faulty_toy import FAULTY
from helpers.device_reads import DeviceReads
from helpers.tensor_env import TensorEnv
from helpers.toy_world import ACT_STEPS, CPU, toy_env, toy_model, toy_sampler

from rlft.placement import Placement
from rlft.rollout.group import NonFiniteActionError
from rlft.rollout.observations import indices, put_rows, take_rows
from rlft.seeding import seed_for
from rlft.types import Observation, map_rows

COLUMNS = ("chain", "latent", "action", "value", "rewards", "n_executed", "terminated", "truncated", "final_value")


def column(rollout, name):
    return {**rollout.trace.tensors(), **rollout.chunks.tensors()}[name]


def collect(*, seed=0, iteration=0, num_envs=4, env=None, **settings):
    env = env or toy_env(num_envs, **settings)
    return toy_sampler(env, model=toy_model(), seed=seed).collect(iteration)


def test_the_same_seed_gives_the_same_rollout_and_another_does_not():
    (a, _), (b, _), (c, _) = collect(seed=1), collect(seed=1), collect(seed=2)
    for name in COLUMNS:
        assert torch.equal(column(a, name), column(b, name)), name
    (next_iteration, _) = collect(seed=1, iteration=1)
    for other in (c, next_iteration):
        assert not torch.equal(column(a, "chain"), column(other, "chain"))


def both_ways(make_envs, **settings):
    """The same groups, overlapping and in turn, for two iterations each."""
    found = []
    for overlap in (False, True):
        envs = make_envs()
        sampler = toy_sampler(*envs, model=toy_model(), overlap=overlap, **settings)
        found.append([columns(sampler.collect(iteration)) for iteration in (0, 1)])
        sampler.close()
        for env in envs:
            env.close()
    return found


def columns(collected):
    """A copy of what the next rollout overwrites, and the statistics."""
    buffer, stats = collected
    return {name: column(buffer, name).clone() for name in COLUMNS}, stats


@pytest.mark.parametrize("reset", [True, False])
def test_overlap_changes_no_bit(reset):
    plain, overlapped = both_ways(lambda: [toy_env(3, limit=5), toy_env(2, limit=5)], reset=reset)
    for (a, a_stats), (b, b_stats) in zip(plain, overlapped):
        for name in COLUMNS:
            assert torch.equal(a[name], b[name]), name
        assert a_stats.episode_returns == b_stats.episode_returns
        assert a_stats.env_steps == b_stats.env_steps


def test_neither_groups_nor_the_number_of_neighbours_change_an_environments_rollout():
    (whole, _), (few, _) = collect(num_envs=5), collect(num_envs=2)
    split, _ = toy_sampler(toy_env(3), toy_env(2), model=toy_model()).collect(0)
    for name in COLUMNS:
        values = column(whole, name).float()
        assert torch.allclose(values, column(split, name).float(), atol=1e-6), name
        assert torch.allclose(values[:, :2], column(few, name).float(), atol=1e-6), name


def test_with_overlap_one_group_is_simulated_while_the_policy_decides_for_the_other():
    envs, executed, other_began = [toy_env(2), toy_env(2)], [], threading.Event()

    def first(actions, step_chunk=envs[0].step_chunk):
        assert other_began.wait(10.0)  # stays inside its chunk until the policy has decided for the other group
        other_began.clear()
        executed.append(0)
        return step_chunk(actions)

    def second(actions, step_chunk=envs[1].step_chunk):
        other_began.set()
        executed.append(1)
        return step_chunk(actions)

    envs[0].step_chunk, envs[1].step_chunk = first, second
    _, stats = toy_sampler(*envs, model=toy_model(), overlap=True, num_decisions=2).collect(0)
    assert sorted(executed) == [0, 0, 1, 1]
    assert 0.0 < stats.wait_seconds < stats.seconds


def test_an_error_waits_for_the_simulators_before_it_is_raised():
    envs, finished = [toy_env(1), toy_env(1)], []

    def slow(actions, step_chunk=envs[0].step_chunk):
        time.sleep(0.2)
        finished.append(True)
        return step_chunk(actions)

    def broken(actions):
        raise RuntimeError("broken")

    envs[0].step_chunk, envs[1].step_chunk = slow, broken
    with pytest.raises(RuntimeError, match="broken"):
        toy_sampler(*envs, model=toy_model(), overlap=True, num_decisions=1).collect(0)
    assert finished


def test_truncated_chunks_carry_the_value_of_their_true_final_observation():
    env, model = toy_env(3, limit=4), toy_model()
    sampler = toy_sampler(env, model=model, num_decisions=6)
    seen = {}
    original = sampler._final_values

    def spy(executed, t, ids):
        values = original(executed, t, ids)
        seen[t] = (executed.step.truncated, executed.step.terminated, values)
        return values

    sampler._final_values = spy
    buffer, _ = sampler.collect(0)
    truncations = 0
    for t, (truncated, terminated, values) in seen.items():
        last = t == 5
        for e in range(3):
            used = (truncated[e] or last) and not terminated[e]
            assert (float(values[e]) != 0.0) == used
            truncations += bool(truncated[e])
            if truncated[e] and not last:  # the next decision looks at a new episode, with another value
                assert float(values[e]) != float(column(buffer, "value")[t + 1, e])
    assert truncations > 0


def test_statistics_count_what_was_executed():
    env = toy_env(4, limit=5)  # odd limit: the last chunk of an episode executes one step of two
    buffer, stats = toy_sampler(env, model=toy_model(), num_decisions=9).collect(0)
    n = column(buffer, "n_executed")
    assert stats.env_steps == int(n.sum())
    assert int(n.min()) == 1
    assert int(n.max()) == ACT_STEPS
    assert sum(stats.episode_lengths) <= stats.env_steps
    assert max(stats.episode_lengths) <= 5
    assert stats.scalars()["rollout/episodes"] == len(stats.episode_returns)


def test_episodes_run_on_where_iterations_do_not_reset_them():
    env = toy_env(2, limit=7, episode_ends_on_success=False)
    sampler = toy_sampler(env, model=toy_model(), num_decisions=3, reset=False)
    (_, first), (_, second) = sampler.collect(0), sampler.collect(1)
    assert first.episode_lengths == []
    assert second.episode_lengths == [7, 7]


def test_a_diverged_policy_is_stopped_before_the_simulator():
    env, model = toy_env(2), toy_model()
    with torch.no_grad():
        model.actor.policy.w3.fill_(float("nan"))
    with pytest.raises(NonFiniteActionError, match=r"\[0, 1\]"):
        toy_sampler(env, model=model).collect(0)


def test_a_failed_simulator_is_discarded_and_the_rollout_goes_on(tmp_path):
    fault = {"kind": "nan_reward", "seed": seed_for(0, "rollout-episode", 0, 1, 0), "at_step": 3}
    buffer, stats = collect(simulator=FAULTY, make_kwargs={"fault": fault})
    invalid = column(buffer, "invalid")
    assert invalid[1, 1]
    assert int(invalid.sum()) == 1
    assert stats.invalid == 1
    assert torch.isfinite(column(buffer, "rewards")[~invalid]).all()


@pytest.mark.parametrize("bad", [None, 1])
def test_gpu_physics_is_waited_for_once_a_chunk_and_no_decision_is_read(bad):
    """Tensors stay tensors, as on a GPU; what reads them is counted."""
    env, model = TensorEnv(toy_env(2, limit=4)), toy_model()
    sampler = toy_sampler(env, model=model, placement=Placement(CPU, CPU, CPU, sim_tensors=True))
    env.bad = bad
    reference, _ = toy_sampler(toy_env(2, limit=4), model=toy_model()).collect(0)
    with DeviceReads() as reads:
        if bad is not None:
            with pytest.raises(NonFiniteActionError, match=r"\[1\]"):
                sampler.collect(0)
            return
        buffer, stats = sampler.collect(0)
        assert reads.counts == Counter(numpy=5)
        assert stats.scalars()["rollout/noise_std"] > 0
        assert reads.counts == Counter(numpy=5, tolist=1)
    for name in COLUMNS:
        assert torch.equal(column(buffer, name), column(reference, name)), name


def test_cpu_physics_takes_the_actions_off_the_policys_device_once():
    env, model = toy_env(2), toy_model()
    sampler = toy_sampler(env, model=model)
    with DeviceReads() as reads:
        _, stats = sampler.collect(0)
    assert reads.counts == Counter(numpy=5)
    assert stats.sent_actions > 0


@pytest.mark.parametrize("method", ["flow_noise", "flow_sde_single"])
def test_even_batches_change_no_value_of_a_row(method):
    fault = {"kind": "nan_reward", "seed": seed_for(0, "rollout-episode", 0, 1, 0), "at_step": 1}
    rows = []

    def collected(even):
        model, seen = toy_model(method), []
        env = toy_env(5, limit=3, simulator=FAULTY, make_kwargs={"fault": fault})
        sampler = toy_sampler(env, model=model, num_decisions=4, even_batches=even)

        def encode(inputs, original=model.actor.policy.encode):
            seen.append(len(inputs))
            return original(inputs)

        model.actor.policy.encode = encode
        rows.append(seen)
        return sampler.collect(0)[0].chunks.final_value

    plain, even = collected(False), collected(True)
    assert set(rows[0]) != {5}, "the case has batches of all sizes"
    assert set(rows[1]) == {5}
    assert torch.allclose(plain, even, atol=1e-6)
    assert torch.equal(plain == 0, even == 0)


def test_closing_ends_the_simulators_threads_and_they_know_their_gpu(monkeypatch):
    entered = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: entered.append((threading.current_thread(), device)))
    placement = Placement(torch.device("meta"), CPU, CPU, sim_tensors=True)
    sampler = toy_sampler(toy_env(1), model=toy_model(), overlap=True, placement=placement)
    sampler._executor.submit(int).result()
    ((thread, device),) = entered
    assert device == placement.sim
    assert thread is not threading.current_thread()
    sampler.close()
    sampler.close()
    assert not thread.is_alive()


def observation(rows, start=0, *, to=np.asarray):
    numbers = np.arange(start, start + rows, dtype=np.float32)
    return Observation(
        images={"cam": to(np.tile(numbers[:, None, None, None], (1, 2, 2, 3)).astype(np.uint8))},
        state=to(numbers[:, None]),
        task=[f"task {int(i)}" for i in numbers],
        privileged=to(numbers[:, None] * 10),
    )


@pytest.mark.parametrize("to", [np.asarray, torch.as_tensor])
def test_rows_are_taken_in_the_order_asked_for(to):
    taken = take_rows(observation(4, to=to), [2, 0])
    assert taken.state[:, 0].tolist() == [2.0, 0.0]
    assert taken.images["cam"][:, 0, 0, 0].tolist() == [2, 0]
    assert taken.task == ["task 2", "task 0"]


@pytest.mark.parametrize("to", [np.asarray, torch.as_tensor])
def test_putting_rows_changes_these_rows_of_a_copy_only(to):
    old = observation(4, to=to)
    merged = put_rows(old, [3, 1], observation(2, start=7, to=to))
    assert merged.state[:, 0].tolist() == [0.0, 8.0, 2.0, 7.0]
    assert merged.privileged[:, 0].tolist() == [0.0, 80.0, 20.0, 70.0]
    assert merged.task == ["task 0", "task 8", "task 2", "task 7"]
    assert old.state[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_indices_of_either_kind_of_mask():
    assert indices(np.array([True, False, True])) == [0, 2] == indices(torch.tensor([True, False, True]))


def test_nested_states_have_the_rows_of_their_arrays():
    tree = {"a": {"b": torch.arange(6.0).view(3, 2)}, "none": None}
    assert map_rows(lambda x: x[[2]], tree)["a"]["b"].tolist() == [[4.0, 5.0]]
    assert map_rows(torch.add, tree, tree)["a"]["b"][1].tolist() == [4.0, 6.0]
    assert map_rows(torch.clone, tree)["none"] is None
