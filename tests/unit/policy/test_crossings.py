"""A decision and a micro-batch never wait for the device: one bundle goes there, and nothing is read back."""

import numpy as np
import pytest
import torch
from helpers.crossings import META, Crossings
from helpers.learners import make_ppo
from pi0_cases import CPU, TASKS, H, N, S, make_observation, make_stats

from rlft.config.schema import ModelConfig
from rlft.objective.ppo import PpoSignal
from rlft.placement import Placement
from rlft.policy.pretrained import build_policy
from rlft.rollout.buffer import MicroBatch
from rlft.types import Observation

K, A = 3, 4
KINDS = pytest.mark.parametrize("kind", ["small", "small_pi05"])
METHODS = pytest.mark.parametrize("method", ["flow_noise", "flow_sde", "flow_sde_single", "flow_cps"])
DENSITIES = pytest.mark.parametrize("density", ["executed", "masked", "chain"])


def on_the_device(kind="small"):
    return build_policy(ModelConfig(kind), make_stats(), horizon=H, device=META)


def ppo(kind, method, density="masked"):
    policy = on_the_device(kind)
    how = {"method": method, "steps": K, "learned": True, "act_steps": A, "explored": policy.real_dims}
    objective = make_ppo(policy, density=density, **how)
    objective.actor.schedule = objective.actor.schedule.to(META)
    return objective.to(META)


def of_a_gpu_simulator(size=56):
    images = {name: torch.zeros(N, size, size, 3, dtype=torch.uint8, device=META) for name in ("front", "wrist")}
    return Observation(images, torch.zeros(N, S, device=META), list(TASKS))


def decide(objective, obs):
    """What the sampler does for a decision."""
    policy = objective.actor.policy
    draws = objective.draws([torch.Generator() for _ in range(N)])
    with torch.no_grad():
        prefix = policy.encode(policy.prepare(obs))
    sampled = objective.sample(prefix, *Placement(CPU, META, CPU).to_policy((draws, None)))
    return policy.actions_to_env(sampled.chunk[:, :A])


def crossings(work):
    with Crossings():
        work()  # what is made once
    with Crossings() as found:
        work()
    return found


@KINDS
@METHODS
def test_a_decision_on_a_cpu_simulators_observation_sends_its_inputs_and_reads_nothing(kind, method):
    model, obs = ppo(kind, method), make_observation(size=64)
    found = crossings(lambda: decide(model, obs))
    assert (found.reads, found.lists) == ([], [])
    assert found.sent == ["placement.py:_move_tensor _to_copy"] * 6  # pictures, ids, mask, state; noise and steps


@KINDS
@METHODS
def test_a_gpu_simulators_pictures_never_see_the_host_and_its_state_only_where_it_is_text(kind, method):
    model = ppo(kind, method)
    for size in (56, 64):  # of the model's size, or to be resized
        found = crossings(lambda size=size: decide(model, of_a_gpu_simulator(size)))
        text = kind == "small_pi05"
        assert found.reads == ["placement.py:_move_tensor _to_copy"] * text
        assert found.lists == []
        assert found.sent == ["placement.py:_move_tensor _to_copy"] * (4 + text)  # ids, mask, noise, steps; state


@KINDS
@METHODS
@DENSITIES
@pytest.mark.parametrize("train_vlm", [False, True])
def test_a_micro_batch_neither_reads_nor_sends(kind, method, density, train_vlm):
    model = ppo(kind, method, density)
    policy = model.actor.policy
    policy.set_trainable(vlm=train_vlm)
    inputs, row = policy.prepare(make_observation()), torch.zeros(N, device=META)
    draws = Placement(CPU, META, CPU).to_policy(model.draws([torch.Generator() for _ in range(N)]))
    trace = model.sample(policy.encode(inputs), draws, None).trace
    executed = torch.ones(N, dtype=torch.int64, device=META)
    batch = MicroBatch(None, inputs, trace, PpoSignal(row, row), executed)

    def update():
        with torch.enable_grad():
            total, scalars = model.loss(batch, iteration=1)
            (total + sum(scalars.values())).backward()

    found = crossings(update)
    assert (found.reads, found.lists, found.sent) == ([], [], [])
    assert all(p.grad is not None for p in policy.actor_parameters())


@KINDS
def test_a_step_of_sft_sends_its_noise_and_reads_nothing(kind):
    policy = on_the_device(kind)
    inputs = policy.prepare(make_observation())
    actions, is_pad = torch.zeros(N, H, 3, device=META), torch.zeros(N, H, dtype=torch.bool, device=META)

    def step():
        prefix = policy.encode(inputs)
        policy.sft_loss(prefix, policy.actions_from_env(actions), is_pad, torch.Generator()).backward()

    found = crossings(step)
    assert (found.reads, found.lists) == ([], [])
    assert found.sent == ["placement.py:_move_tensor _to_copy"] * 2


@pytest.mark.parametrize(
    "work",
    [
        *(lambda x: float(x.sum()), lambda x: bool((x > 0).all()), lambda x: x.tolist(), lambda x: x.cpu()),
        *(lambda x: torch.zeros(2, 3).copy_(x), lambda x: torch.equal(x, x)),
        *(lambda x: x[..., [0, 1]], lambda x: x.new_tensor([1.0, 2.0]), lambda x: x.copy_(torch.zeros(2, 3))),
        lambda x: torch.tensor([1, 2], device=x.device),
        *(lambda x: torch.as_tensor(np.ones(2), device=x.device), lambda x: x[torch.tensor([1, 0])]),
    ],
)
def test_what_makes_the_host_wait_is_found(work):
    with Crossings() as found:
        work(torch.ones(2, 3, device=META))
    assert len(found.reads) + len(found.lists) + len(found.sent) == 1
