"""torch.compile on the denoise step; it takes most of a minute and a C++ compiler."""

import shutil

import pytest
import torch
from policy.pi0_cases import H, N, make_chunk, make_observation, make_policy

from rlft.policy.pi0 import forward

SMALL = {"depth": 1}


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch 2.11's compiler warns about its own code
@pytest.mark.timeout(600)
def test_a_compiled_denoise_step_gives_the_same_values_and_gradients():
    plain, compiled = make_policy(small=SMALL), make_policy(small=SMALL)
    compiled.compile_denoise_step()
    assert compiled._expert_layers is not forward.expert_layers
    x, t = make_chunk(2 * N)
    found = []
    for policy in (plain, compiled):
        prefix = policy.encode(policy.prepare(make_observation()))
        velocity, _ = policy.velocity(prefix, x, t)
        velocity.square().mean().backward()
        found.append((velocity.detach(), {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}))
    (ours, ours_grad), (theirs, theirs_grad) = found
    assert ours.shape == (2 * N, H, 32)
    assert compiled.prompt_length == 16 > plain.prompt_length  # few lengths, so that few are compiled
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for name, grad in ours_grad.items():
        torch.testing.assert_close(theirs_grad[name], grad, atol=1e-5 * float(grad.abs().max()) + 1e-7, rtol=1e-4)
