"""The score-function gradient against the pathwise one, where the numbers of a chunk feed each other."""

import pytest
import torch
from helpers.learners import make_ppo, settings
from helpers.toy_policies import CoupledPolicy, NoPrefix
from torch import nn

from rlft.policy.actor import Draws

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
    how = {"method": method, "steps": K, "std": (STD, STD * 1.0001), "density": density}
    objective = make_ppo(CoupledPolicy(), settings(value_at=value_at), act_steps=act_steps, explored=explored, **how)
    objective.critic = SeesEverything()
    return objective


def draw(model, n=N, seed=0):
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, K + 1, 2, 2, generator=g)
    drawn = torch.randint(0, K, (n,), generator=g)
    return noise, drawn, model.actor.sample(NoPrefix(torch.zeros(n, 1)), noise, drawn)


def value(model, features):
    return model.critic(model._seen(features), None)


def score_terms(model, sample, weight):
    """``weight * d log p / d bias`` of every row, ``[n, 4]``: its mean is the estimate, its spread the error.

    The policy is linear and its densities Gaussian, so a row's score is the same function of its own chain: one
    backward pass through a copy of the parameter per row.
    """
    n = len(weight)
    policy = model.actor.policy
    rows = policy.bias.detach().expand(n, -1, -1).clone().requires_grad_()
    original = policy.bias

    class PerRow(CoupledPolicy):
        def velocity(self, prefix, x, t):
            self.bias_rows = rows.repeat_interleave(len(x) // n, 0)
            t = t[:, None, None]
            target = self.bias_rows + self.coupling * x.mean((1, 2), keepdim=True)
            seen = torch.cat([x.flatten(1), target.expand_as(x).flatten(1)], -1)
            return (x - target) / (t + 0.5), seen[:, None].expand(-1, self.horizon, -1)

    model.actor.policy = PerRow()
    evaluation = model.actor.evaluate(NoPrefix(torch.zeros(n, 1)), sample.trace.chain, sample.trace.stochastic_step)
    log_prob = evaluation.log_prob.joint(torch.full((n,), model.actor.act_steps))
    model.actor.policy = policy
    assert policy.bias is original
    (gradient,) = torch.autograd.grad(log_prob.sum(), rows)
    return weight[:, None] * gradient.flatten(1)


def estimate(terms):
    return terms.mean(0), terms.std(0) / len(terms) ** 0.5


def pathwise(model, noise, reward):
    """The gradient of the mean reward through the drawn numbers themselves: the truth, up to its own error."""
    x, s = noise[:, 0], model.actor.schedule
    for k in range(K):
        everywhere = torch.ones(len(x), dtype=torch.bool)
        drawn = everywhere if k in s.stochastic_steps else ~everywhere
        mean, std, _ = model.actor.step_dist(NoPrefix(torch.zeros(len(x), 1)), x, torch.full((len(x),), k), drawn)
        x = torch.where(drawn[:, None, None], mean + std * model.actor.noise_mask * noise[:, k + 1], mean)
    (gradient,) = torch.autograd.grad(reward(x).mean(), model.actor.policy.bias)
    return gradient.flatten()


def reward(chunk):
    return -((chunk[:, 0, 0] - 1.0) ** 2)


@pytest.mark.parametrize("method", METHODS)
def test_the_value_is_a_baseline(method):
    """E[V grad log p] = 0: what is subtracted takes nothing of the gradient away."""
    model = coupled(method, density="chain")
    _, _, sample = draw(model)
    v = value(model, sample.features)
    mean, error = estimate(score_terms(model, sample, v - v.mean()))
    assert (mean.abs() < SIGMAS * error + 1e-6).all(), (mean, error)


@pytest.mark.parametrize("method", ["flow_noise", "flow_sde", "flow_cps"])
def test_features_of_all_steps_see_what_was_drawn(method):
    """The published pooling is no baseline: the oracle above fails on it."""
    model = coupled(method, density="chain", value_at="all")
    _, _, sample = draw(model)
    v = value(model, sample.features)
    mean, error = estimate(score_terms(model, sample, v - v.mean()))
    assert (mean.abs() > 4 * SIGMAS * error).any(), (mean, error)


@pytest.mark.parametrize("density", ["executed", "masked", "chain"])
@pytest.mark.parametrize("method", METHODS)
def test_rollout_and_update_give_the_same_value_and_density(method, density):
    for value_at in ("first", "all"):
        model = coupled(method, density=density, value_at=value_at)
        _, _, sample = draw(model, n=64)
        again = model.actor.evaluate(NoPrefix(torch.zeros(64, 1)), sample.trace.chain, sample.trace.stochastic_step)
        for executed in (torch.zeros(64), torch.ones(64)):
            assert torch.allclose(again.log_prob.joint(executed), sample.trace.joint(executed), atol=1e-5)
        assert torch.allclose(value(model, again.features), value(model, sample.features), atol=1e-5)


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
    passes, velocity = [], model.actor.policy.velocity
    model.actor.policy.velocity = lambda *args: (passes.append(1), velocity(*args))[1]
    final = model.final_values(None, lambda: (NoPrefix(torch.zeros(64, 1)), Draws(noise, drawn)))
    decided = value(model, sample.features)
    single = method == "flow_sde_single"
    if not single:
        assert torch.equal(final, decided)
    else:  # the features of another step: another estimate of the same expectation
        assert torch.equal(final[drawn == 0], decided[drawn == 0])
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
    again = model.actor.sample(NoPrefix(torch.zeros(32, 1)), other, torch.zeros(32, dtype=torch.int64))
    assert torch.equal(again.trace.chain, sample.trace.chain)


def test_a_chunk_cut_short_counts_its_earlier_denoise_steps():
    """Latents of steps that the episode's end cut off fed the executed ones; their last draws did not."""
    model = coupled("flow_noise", density="masked", act_steps=2)
    _, _, sample = draw(model, n=8)
    whole, cut = (sample.trace.joint(torch.full((8,), count)) for count in (2, 1))
    assert torch.allclose(whole - cut, sample.trace.action[:, 1])
    moved = sample.trace.chain.clone()
    moved[:, -1, 1] += 3.0
    again = model.actor.evaluate(NoPrefix(torch.zeros(8, 1)), moved, sample.trace.stochastic_step)
    assert torch.allclose(again.log_prob.joint(torch.ones(8)), cut, atol=1e-5)
    moved[:, 1, 1, 0] += 0.1
    again = model.actor.evaluate(NoPrefix(torch.zeros(8, 1)), moved, sample.trace.stochastic_step)
    assert (again.log_prob.joint(torch.ones(8)) - cut).abs().min() > 1e-3
