"""AdamW with float32 masters: small steps are not lost, and float32 parameters see no difference."""

import copy

import pytest
import torch

from rlft.config.learning import OptimizerConfig
from rlft.learn.optimizers import MasterAdamW

SETTINGS = OptimizerConfig(lr=1e-5, weight_decay=0.01)


def parameters(dtype, n=64):
    values = torch.randn(n, generator=torch.Generator().manual_seed(0))
    return [torch.nn.Parameter(values.to(dtype)), torch.nn.Parameter(torch.ones(3))]


def train(network, optimizer, steps, start=0):
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        for part in range(2):  # two micro-batches
            weight = torch.randn(64, generator=generator) + (1.0 if part else 0.5)
            ((network[0].float() * weight).mean() + network[1].sum() * 0.1).backward()
            optimizer.collect()
        torch.nn.utils.clip_grad_norm_(optimizer.masters, 1.0)
        optimizer.step()


def test_float32_parameters_are_stepped_as_torch_steps_them():
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    train(ours, MasterAdamW(ours, SETTINGS), 5)
    reference = torch.optim.AdamW(theirs, lr=1e-5, weight_decay=0.01, fused=True)
    reference.masters, reference.collect = theirs, lambda: None
    train(theirs, reference, 5)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


def test_steps_too_small_for_bfloat16_add_up():
    network, exact = parameters(torch.bfloat16), parameters(torch.float32)
    with torch.no_grad():
        exact[0].copy_(network[0])
    before = network[0].detach().clone()
    train(network, MasterAdamW(network, SETTINGS), 1)
    assert float((network[0] != before).float().mean()) < 0.1  # one step is lost on nearly every number
    optimizer, reference = MasterAdamW(network, SETTINGS), MasterAdamW(exact, SETTINGS)
    with torch.no_grad():
        exact[0].copy_(network[0])
        exact[1].copy_(network[1])
    train(network, optimizer, 300)
    train(exact, reference, 300)
    assert float((network[0] != before).float().mean()) > 0.5
    error = (optimizer.masters[0] - exact[0]).detach().abs().max()
    moved = (exact[0] - before.float()).detach().abs().max()
    assert float(error) < 0.1 * float(moved)
    assert torch.equal(network[0], optimizer.masters[0].to(torch.bfloat16))


def test_gradients_of_micro_batches_are_summed_in_float32():
    (network, _) = parameters(torch.bfloat16)
    optimizer = MasterAdamW([network], SETTINGS)
    for _ in range(1000):
        (network.float() * 1.0).sum().backward()
        optimizer.collect()
    assert network.grad is None
    assert optimizer.masters[0].grad.tolist() == [1000.0] * 64  # bfloat16 would stop at 256


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_run_goes_on_bit_for_bit(dtype):
    whole, optimizer = parameters(dtype), None
    optimizer = MasterAdamW(whole, SETTINGS)
    train(whole, optimizer, 3)
    saved, weights = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in whole]
    train(whole, optimizer, 3, start=3)
    resumed = parameters(dtype)
    with torch.no_grad():
        for parameter, value in zip(resumed, weights):
            parameter.copy_(value)
    again = MasterAdamW(resumed, SETTINGS)
    again.load_state_dict(saved)
    train(resumed, again, 3, start=3)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed))
    assert all(torch.equal(a, b) for a, b in zip(optimizer.masters, again.masters))
