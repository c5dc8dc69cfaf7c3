"""The score-function gradient against the pathwise one, where the numbers of a chunk feed each other."""

import pytest
import torch
from helpers.toy_policies import CoupledPolicy, NoPrefix
from torch import nn

from rlft.policy.actor_critic import ActorCritic
from rlft.policy.critic import Critic
from rlft.policy.denoise import make_schedule
from rlft.policy.noise import NoiseHead

N, K, STD = 200_000, 3, 0.4
METHODS = ("flow_noise", "flow_sde", "flow_sde_single", "flow_cps")
SIGMAS = 5.0  # a right mean passes this once in two million


class SeesEverything(nn.Module):
    """A value head that reads the sum of its features: what was drawn shows in it."""

    feature_dim = 8

    def forward(self, features, privileged):
        return features.sum(-1)


def coupled(method, *, density="masked", value_at="first", act_steps=1, explored=(0,)):
    """Two steps and two dimensions, of which one number is executed and explored."""
    policy = CoupledPolicy()
    noise = NoiseHead(policy.feature_dim, 2, STD, STD * 1.0001, learned=False)
    schedule = make_schedule(method, K, 0.5)
    model = ActorCritic(
        policy, noise, Critic(4, 0, [4]), schedule, act_steps, explored, density=density, value_at=value_at
    )
    model.critic = SeesEverything()
    return model


def draw(model, n=N, seed=0):
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, K + 1, 2, 2, generator=g)
    drawn = torch.randint(0, K, (n,), generator=g)
    return noise, drawn, model.sample(NoPrefix(torch.zeros(n, 1)), noise, drawn, None)


def score_terms(model, sample, weight):
    """``weight * d log p / d bias`` of every row, ``[n, 4]``: its mean is the estimate, its spread the error.

    The policy is linear and its densities Gaussian, so a row's score is the same function of its own chain: one
    backward pass through a copy of the parameter per row.
    """
    n = len(weight)
    policy = model.policy
    rows = policy.bias.detach().expand(n, -1, -1).clone().requires_grad_()
    original = policy.bias

    class PerRow(CoupledPolicy):
        def velocity(self, prefix, x, t):
            self.bias_rows = rows.repeat_interleave(len(x) // n, 0)
            t = t[:, None, None]
            target = self.bias_rows + self.coupling * x.mean((1, 2), keepdim=True)
            seen = torch.cat([x.flatten(1), target.expand_as(x).flatten(1)], -1)
            return (x - target) / (t + 0.5), seen[:, None].expand(-1, self.horizon, -1)

    model.policy = PerRow()
    evaluation = model.evaluate(NoPrefix(torch.zeros(n, 1)), sample.chain, sample.drawn_step, None)
    log_prob = evaluation.log_prob.joint(torch.full((n,), model.act_steps))
    model.policy = policy
    assert policy.bias is original
    (gradient,) = torch.autograd.grad(log_prob.sum(), rows)
    return weight[:, None] * gradient.flatten(1)


def estimate(terms):
    return terms.mean(0), terms.std(0) / len(terms) ** 0.5


def pathwise(model, noise, reward):
    """The gradient of the mean reward through the drawn numbers themselves: the truth, up to its own error."""
    x, s = noise[:, 0], model.schedule
    for k in range(K):
        everywhere = torch.ones(len(x), dtype=torch.bool)
        drawn = everywhere if k in s.stochastic_steps else ~everywhere
        mean, std, _ = model.step_dist(NoPrefix(torch.zeros(len(x), 1)), x, torch.full((len(x),), k), drawn)
        x = torch.where(drawn[:, None, None], mean + std * model.noise_mask * noise[:, k + 1], mean)
    (gradient,) = torch.autograd.grad(reward(x).mean(), model.policy.bias)
    return gradient.flatten()


def reward(chunk):
    return -((chunk[:, 0, 0] - 1.0) ** 2)


@pytest.mark.parametrize("method", METHODS)
def test_the_value_is_a_baseline(method):
    """E[V grad log p] = 0: what is subtracted takes nothing of the gradient away."""
    model = coupled(method, density="chain")
    _, _, sample = draw(model)
    mean, error = estimate(score_terms(model, sample, sample.value - sample.value.mean()))
    assert (mean.abs() < SIGMAS * error + 1e-6).all(), (mean, error)


@pytest.mark.parametrize("method", ["flow_noise", "flow_sde", "flow_cps"])
def test_features_of_all_steps_see_what_was_drawn(method):
    """The published pooling is no baseline: the oracle above fails on it."""
    model = coupled(method, density="chain", value_at="all")
    _, _, sample = draw(model)
    mean, error = estimate(score_terms(model, sample, sample.value - sample.value.mean()))
    assert (mean.abs() > 4 * SIGMAS * error).any(), (mean, error)


@pytest.mark.parametrize("density", ["executed", "masked", "chain"])
@pytest.mark.parametrize("method", METHODS)
def test_rollout_and_update_give_the_same_value_and_density(method, density):
    for value_at in ("first", "all"):
        model = coupled(method, density=density, value_at=value_at)
        _, _, sample = draw(model, n=64)
        again = model.evaluate(NoPrefix(torch.zeros(64, 1)), sample.chain, sample.drawn_step, None)
        for executed in (torch.zeros(64), torch.ones(64)):
            assert torch.allclose(again.log_prob.joint(executed), sample.log_prob.joint(executed), atol=1e-5)
        assert torch.allclose(again.value, sample.value, atol=1e-5)


@pytest.mark.parametrize("method", ["flow_noise", "flow_sde"])
def test_the_whole_chains_gradient_is_exact(method):
    model = coupled(method, density="chain")
    noise, _, sample = draw(model)
    r = reward(sample.actions)
    mean, error = estimate(score_terms(model, sample, r - r.mean()))
    truth = pathwise(model, noise, reward)
    assert ((mean - truth).abs() < SIGMAS * error + 0.01).all(), (mean, truth, error)
    assert truth.abs().min() > 10 * error.max()  # every number of the chunk has an effect


@pytest.mark.parametrize("value_at", ["first", "all"])
@pytest.mark.parametrize("method", METHODS)
def test_an_observation_that_nothing_is_decided_on_has_the_value_of_a_decision(method, value_at):
    """In one pass of the network, where the value reads the first step alone."""
    model = coupled(method, value_at=value_at)
    noise, drawn, sample = draw(model, n=64)
    passes, velocity = [], model.policy.velocity
    model.policy.velocity = lambda *args: (passes.append(1), velocity(*args))[1]
    value = model.value(NoPrefix(torch.zeros(64, 1)), noise, drawn, None)
    single = method == "flow_sde_single"
    if not single:
        assert torch.equal(value, sample.value)
    else:  # the features of another step: another estimate of the same expectation
        assert torch.equal(value[drawn == 0], sample.value[drawn == 0])
    assert len(passes) == (1 if single or value_at == "first" else K)


@pytest.mark.parametrize("density", ["executed", "masked"])
@pytest.mark.parametrize("method", ["flow_noise", "flow_sde"])
def test_numbers_without_a_density_get_no_gradient(method, density):
    """What docs/algorithm.md says of the other two: their own numbers are right, the others' gradient is lost."""
    model = coupled(method, density=density)
    noise, _, sample = draw(model)
    r = reward(sample.actions)
    mean, _ = estimate(score_terms(model, sample, r - r.mean()))
    truth = pathwise(model, noise, reward)
    assert mean[1:].abs().max() == 0.0
    assert truth[1:].abs().min() > 0.05
    assert float(mean[0] * truth[0]) > 0.0


def test_a_masked_chain_draws_nowhere_else():
    model = coupled("flow_noise", density="masked")
    noise, _, sample = draw(model, n=32)
    other = noise.clone()
    other[:, 1:, 1, :] += 1.0
    other[:, 1:, :, 1] -= 1.0
    again = model.sample(NoPrefix(torch.zeros(32, 1)), other, torch.zeros(32, dtype=torch.int64), None)
    assert torch.equal(again.chain, sample.chain)


def test_a_chunk_cut_short_counts_its_earlier_denoise_steps():
    """Latents of steps that the episode's end cut off fed the executed ones; their last draws did not."""
    model = coupled("flow_noise", density="masked", act_steps=2)
    _, _, sample = draw(model, n=8)
    whole, cut = (sample.log_prob.joint(torch.full((8,), count)) for count in (2, 1))
    assert torch.allclose(whole - cut, sample.log_prob.action[:, 1])
    moved = sample.chain.clone()
    moved[:, -1, 1] += 3.0
    again = model.evaluate(NoPrefix(torch.zeros(8, 1)), moved, sample.drawn_step, None)
    assert torch.allclose(again.log_prob.joint(torch.ones(8)), cut, atol=1e-5)
    moved[:, 1, 1, 0] += 0.1
    again = model.evaluate(NoPrefix(torch.zeros(8, 1)), moved, sample.drawn_step, None)
    assert (again.log_prob.joint(torch.ones(8)) - cut).abs().min() > 1e-3
