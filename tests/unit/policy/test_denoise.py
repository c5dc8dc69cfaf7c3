"""Samplers against closed forms: linear-Gaussian targets, golden stds, a multivariate normal for the whole chain."""

import math

import pytest
import torch
from helpers.learners import make_actor
from helpers.toy_policies import LinearGaussianPolicy, MlpPolicy, NoPrefix

from rlft.policy.denoise import ChainLogProb, make_schedule, normal_log_prob, transition_mean
from rlft.policy.heads import NoiseHead

MU, S = 0.7, 0.3


def make_model(policy, method, num_steps, *, std=(0.08, 0.16), **changes):
    return make_actor(policy, method, num_steps, std=std, **changes)


def propagate(schedule, policy, learned_std=None):
    """Exact mean and std after every step of a sampler on an affine velocity, from N(0, 1)."""
    mean, var, out = 0.0, 1.0, []
    for k in range(schedule.num_steps):
        t, t_next, c = schedule.t[k : k + 1], schedule.t[k + 1 : k + 2], schedule.noise_coef[k : k + 1]
        points = torch.tensor([0.0, 1.0])[:, None, None]
        v, _ = policy.velocity(None, points, t.expand(2))
        y = transition_mean(points, v, t.expand(2), t_next.expand(2), c.expand(2)).flatten()
        slope, offset = float(y[1] - y[0]), float(y[0])
        std = float(schedule.std[k]) if learned_std is None else learned_std
        mean, var = offset + slope * mean, slope**2 * var + std**2
        out.append((mean, math.sqrt(var)))
    return out


def test_time_runs_from_noise_to_action():
    assert make_schedule("ode", 4, 0.0).t.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_flow_sde_stds_are_the_published_ones():
    std = make_schedule("flow_sde", 4, 0.5).std
    assert std == pytest.approx(torch.tensor([0.5, 0.4330, 0.25, 0.1443]), abs=1e-4)


GOLDEN_STD = {
    ("ode", None): (0.0, 0.0826, 0.1772, 0.2469),
    ("flow_sde", None): (0.5154, 0.3558, 0.2380, 0.2704),
    ("flow_noise", 0.1): (0.1, 0.1307, 0.2162, 0.3205),
    ("flow_cps", None): (0.0, 0.0826, 0.1720, 0.2297),
}


@pytest.mark.parametrize(("method", "sigma"), GOLDEN_STD)
def test_terminal_std_on_a_linear_gaussian_target(method, sigma):
    for num_steps, expected in zip((1, 2, 4, 10), GOLDEN_STD[method, sigma], strict=True):
        moments = propagate(make_schedule(method, num_steps, 0.5), LinearGaussianPolicy(MU, S), sigma)
        assert moments[-1][1] == pytest.approx(expected, abs=2e-4), (method, num_steps)


@pytest.mark.parametrize("method", ["ode", "flow_noise", "flow_sde", "flow_cps"])
@pytest.mark.parametrize("num_steps", [1, 3, 8])
@pytest.mark.parametrize("level", [0.2, 0.8])
def test_every_sampler_keeps_the_flows_mean(method, num_steps, level):
    schedule = make_schedule(method, num_steps, level)
    moments = propagate(schedule, LinearGaussianPolicy(MU, S), 0.1 if method == "flow_noise" else None)
    for k, (mean, _) in enumerate(moments):
        assert mean == pytest.approx((1 - float(schedule.t[k + 1])) * MU, abs=1e-5)


@pytest.mark.parametrize("method", ["flow_noise", "flow_sde", "flow_cps"])
def test_samples_have_the_closed_forms_moments(method):
    policy = LinearGaussianPolicy(MU, S)
    model = make_model(policy, method, 4, std=(0.1, 0.1000001))
    n = 40_000
    noise = torch.randn(n, 5, 1, 1, generator=torch.Generator().manual_seed(1))
    sample = model.sample(NoPrefix(torch.zeros(n, 1)), noise, torch.zeros(n, dtype=torch.int64))
    expected_mean, expected_std = propagate(model.schedule, policy, 0.1 if method == "flow_noise" else None)[-1]
    assert float(sample.actions.mean()) == pytest.approx(expected_mean, abs=5 * expected_std / n**0.5)
    assert float(sample.actions.std()) == pytest.approx(expected_std, rel=0.02)


@pytest.mark.parametrize("method", ["flow_noise", "flow_sde"])
def test_chain_log_prob_is_the_joint_normal_density(method):
    """On an affine velocity the whole chain is jointly normal: compare with its covariance matrix's density."""
    policy, num_steps = LinearGaussianPolicy(MU, S), 3
    model = make_model(policy, method, num_steps, std=(0.1, 0.1000001))
    s = model.schedule
    mean, factor = [torch.zeros(())], [torch.eye(num_steps + 1, dtype=torch.float64)[0]]
    for k in range(num_steps):  # x_{k+1} = slope x_k + offset + std z_{k+1}
        points = torch.tensor([0.0, 1.0])[:, None, None]
        v, _ = policy.velocity(None, points, s.t[k].expand(2))
        y = transition_mean(points, v, s.t[k].expand(2), s.t[k + 1].expand(2), s.noise_coef[k].expand(2)).flatten()
        slope = float(y[1] - y[0])
        std = 0.1 if method == "flow_noise" else float(s.std[k])
        row = slope * factor[-1]
        row[k + 1] = std
        factor.append(row)
        mean.append(y[0] + slope * mean[-1])
    transform = torch.stack(factor)
    joint = torch.distributions.MultivariateNormal(torch.stack(mean).double(), transform @ transform.T)
    noise = torch.randn(32, num_steps + 1, 1, 1, generator=torch.Generator().manual_seed(2))
    sample = model.sample(NoPrefix(torch.zeros(32, 1)), noise, torch.zeros(32, dtype=torch.int64))
    expected = joint.log_prob(sample.trace.chain[:, :, 0, 0].double())
    assert torch.allclose(sample.trace.joint(torch.ones(32)).double(), expected, atol=2e-4)


METHODS = ["flow_noise", "flow_sde", "flow_sde_single", "flow_cps"]


def joint(model, prefix, chain, stochastic_step):
    executed = torch.full((len(chain),), model.act_steps)
    return model.evaluate(prefix, chain, stochastic_step).log_prob.joint(executed)


def sample_and_evaluate(model, n=12, seed=3):
    policy = model.policy
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, model.schedule.num_steps + 1, policy.horizon, policy.action_width, generator=g)
    prefix = NoPrefix(torch.randn(n, 2, generator=g))
    drawn = torch.randint(0, model.schedule.num_steps, (n,), generator=g)
    return prefix, model.sample(prefix, noise, drawn)


@pytest.mark.parametrize("method", METHODS)
def test_update_path_reproduces_the_rollouts_log_prob_and_features(method):
    model = make_model(MlpPolicy(), method, 4, act_steps=2, explored=[0, 2], learned=True)
    prefix, sample = sample_and_evaluate(model)
    again = model.evaluate(prefix, sample.trace.chain, sample.trace.stochastic_step)
    for executed in (torch.full((12,), 2), torch.ones(12)):
        assert torch.allclose(again.log_prob.joint(executed), sample.trace.joint(executed), atol=1e-4)
    assert torch.allclose(again.features, sample.features, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_shifted_time_grid_is_noticed(method):
    model = make_model(MlpPolicy(), method, 4, act_steps=2, explored=[0, 2])
    prefix, sample = sample_and_evaluate(model)
    model.schedule.t.sub_(0.01).clamp_(min=1e-3)
    again = model.evaluate(prefix, sample.trace.chain, sample.trace.stochastic_step)
    whole = torch.full((12,), 2)
    assert (again.log_prob.joint(whole) - sample.trace.joint(whole)).abs().max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_padding_and_unexecuted_steps_leave_the_log_prob_unchanged(method):
    model = make_model(MlpPolicy(horizon=3, width=4), method, 4, act_steps=2, explored=[0, 2])
    prefix, sample = sample_and_evaluate(model)
    base = joint(model, prefix, sample.trace.chain, sample.trace.stochastic_step)
    last = sample.trace.chain.clone()
    last[:, -1, 2:] += 5.0  # beyond act_steps
    last[:, -1, :, [1, 3]] -= 5.0  # padded dimensions
    assert torch.equal(joint(model, prefix, last, sample.trace.stochastic_step), base)
    last[:, -1, 0, 0] += 0.1  # a real one
    moved = joint(model, prefix, last, sample.trace.stochastic_step)
    if method == "flow_cps":  # its last step is deterministic: no density there
        assert torch.equal(moved, base)
    elif method != "flow_sde_single":
        assert not torch.allclose(moved, base)


def test_reduce_counts_only_steps_that_were_executed():
    per_step = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])
    log_prob = ChainLogProb(latent=torch.tensor([0.5, 0.5, 0.5]), action=per_step)
    assert log_prob.joint(torch.tensor([3, 1, 0])).tolist() == [7.5, 1.5, 0.5]


def test_single_step_sampler_draws_one_step_and_follows_the_ode_elsewhere():
    model = make_model(MlpPolicy(), "flow_sde_single", 4)
    prefix, sample = sample_and_evaluate(model)
    ode = make_schedule("ode", 4, 0.0)
    for k in range(4):
        x = sample.trace.chain[:, k]
        v, _ = model.policy.velocity(prefix, x, ode.t[k].expand(len(x)))
        flow = transition_mean(x, v, ode.t[k].expand(len(x)), ode.t[k + 1].expand(len(x)), ode.t[k + 1].expand(len(x)))
        same = (sample.trace.chain[:, k + 1] - flow).abs().amax((1, 2)) < 1e-5
        assert torch.equal(same, sample.trace.stochastic_step != k)


def test_noise_head_starts_at_the_geometric_mean_and_stays_in_bounds():
    head = NoiseHead(8, 4, 0.08, 0.16, learned=True)
    features = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(head(features), torch.tensor(math.sqrt(0.08 * 0.16)))
    with torch.no_grad():
        head.net[-1].bias.copy_(torch.tensor([1e3, -1e3, 1.0, 0.0]))
    std = head(features).detach()
    assert std.min() >= 0.08 - 1e-6
    assert std.max() <= 0.16 + 1e-6
    assert float(std[0, 0, 0]) == pytest.approx(0.16, abs=1e-5)
    assert float(std[0, 0, 1]) == pytest.approx(0.08, abs=1e-5)


def test_normal_log_prob_matches_torch():
    g = torch.Generator().manual_seed(0)
    x, m, s = torch.randn(7, generator=g), torch.randn(7, generator=g), torch.rand(7, generator=g) + 0.1
    assert torch.allclose(normal_log_prob(x, m, s), torch.distributions.Normal(m, s).log_prob(x))


def test_unknown_sampler_is_named():
    with pytest.raises(ValueError, match="flow_dance"):
        make_schedule("flow_dance", 4, 0.5)


def test_dimensions_that_are_not_explored_follow_the_flow_and_have_no_density():
    model = make_model(MlpPolicy(horizon=2, width=3), "flow_noise", 3, std=(0.1, 0.2), explored=[0], frozen=[2])
    prefix, sample = sample_and_evaluate(model)
    k = torch.zeros(12, dtype=torch.int64)
    mean, _, _ = model.step_dist(prefix, sample.trace.chain[:, 0], k, torch.ones(12, dtype=torch.bool))
    difference = (sample.trace.chain[:, 1] - mean).abs().amax((0, 1))
    assert difference[2] == 0.0
    assert difference[0] > 0.0
    moved = sample.trace.chain.clone()
    moved[:, -1, :, 2] += 1.0
    before, after = (joint(model, prefix, x, sample.trace.stochastic_step) for x in (sample.trace.chain, moved))
    assert torch.equal(before, after)
