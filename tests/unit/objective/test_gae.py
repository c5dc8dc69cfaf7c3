"""GAE over chunks against hand-computed numbers and an O(T^2) brute force."""

import pytest
import torch

from rlft.objective.gae import chunk_discounts, chunk_returns, gae, normalize_advantages


def column(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype)[:, None]


def flags(*values):
    return column(*values, dtype=torch.bool)


def brute_force(returns, discounts, values, final_values, terminated, truncated, invalid, lam):
    """A_t = sum over s >= t of (product of g*lambda between) * delta_s, stopping at the episode's end."""
    horizon, num_envs = returns.shape
    out = torch.zeros_like(returns, dtype=torch.float64)
    for e in range(num_envs):
        for t in range(horizon):
            weight, total = 1.0, 0.0
            for s in range(t, horizon):
                if invalid[s, e]:
                    break
                if terminated[s, e]:
                    next_value = 0.0
                elif truncated[s, e] or s == horizon - 1:
                    next_value = float(final_values[s, e])
                else:
                    next_value = float(values[s + 1, e])
                delta = float(returns[s, e]) + float(discounts[s, e]) * next_value - float(values[s, e])
                total += weight * delta
                if terminated[s, e] or truncated[s, e]:
                    break
                weight *= float(discounts[s, e]) * lam
            out[t, e] = total
    return out.float()


@pytest.mark.parametrize("gamma_per", ["chunk", "step"])
@pytest.mark.parametrize("seed", range(5))
def test_gae_equals_brute_force(seed, gamma_per):
    g = torch.Generator().manual_seed(seed)
    horizon, num_envs, act_steps = 12, 7, 4
    n_executed = torch.randint(1, act_steps + 1, (horizon, num_envs), generator=g)
    rewards = torch.randn(horizon, num_envs, act_steps, generator=g)
    rewards *= torch.arange(act_steps) < n_executed[..., None]
    ends = torch.rand(horizon, num_envs, generator=g)
    arguments = {
        "returns": chunk_returns(rewards, 0.9, gamma_per),
        "discounts": chunk_discounts(n_executed, 0.9, gamma_per),
        "values": torch.randn(horizon, num_envs, generator=g),
        "final_values": torch.randn(horizon, num_envs, generator=g),
        "terminated": ends < 0.15,
        "truncated": (ends > 0.1) & (ends < 0.3),
        "invalid": ends > 0.93,
    }
    result = gae(**arguments, gae_lambda=0.8)
    assert torch.allclose(result, brute_force(*arguments.values(), 0.8), atol=1e-4)


def test_by_hand_termination_has_no_value_beyond_it():
    none = flags(False, False)
    a = gae(column(1.0, 2), column(0.5, 0.5), column(3.0, 4), column(99.0, 99), flags(False, True), none, none, 0.5)
    assert a[1].item() == pytest.approx(2.0 - 4.0)
    assert a[0].item() == pytest.approx((1.0 + 0.5 * 4.0 - 3.0) + 0.25 * (2.0 - 4.0))


def test_by_hand_truncation_uses_its_true_final_observation_and_cuts():
    """The next episode's first value (100) must not leak, and neither must its advantage."""
    none = flags(False, False)
    a = gae(column(1.0, 0), column(0.5, 0.5), column(3.0, 100), column(8.0, 0), none, flags(True, False), none, 0.9)
    assert a[0].item() == pytest.approx(1.0 + 0.5 * 8.0 - 3.0)


def test_by_hand_success_at_the_time_limit_is_a_termination():
    both = flags(True)
    a = gae(column(1.0), column(0.9), column(0.5), column(50.0), both, both, flags(False), 0.9)
    assert a.item() == pytest.approx(1.0 - 0.5)


def test_the_rollouts_end_bootstraps_an_unfinished_episode():
    none = flags(False)
    a = gae(column(1.0), column(0.9), column(0.5), column(2.0), none, none, none, 0.95)
    assert a.item() == pytest.approx(1.0 + 0.9 * 2.0 - 0.5)


def test_a_failed_simulator_gives_no_advantage_and_does_not_reach_back():
    none = flags(False, False)
    a = gae(column(1.0, 1e6), column(1.0, 1.0), column(0.0, 5.0), column(0.0, 1e6), none, none, flags(False, True), 1.0)
    assert a[1].item() == 0.0
    assert a[0].item() == pytest.approx(1.0 + 5.0)


def test_gamma_per_step_discounts_inside_the_chunk_by_executed_steps():
    rewards = torch.tensor([[1.0, 1.0, 0.0]])
    assert chunk_returns(rewards, 0.5, "step").item() == pytest.approx(1.5)
    assert chunk_returns(rewards, 0.5, "chunk").item() == pytest.approx(2.0)
    n = torch.tensor([2])
    assert chunk_discounts(n, 0.5, "step").item() == pytest.approx(0.25)
    assert chunk_discounts(n, 0.5, "chunk").item() == pytest.approx(0.5)


def test_normalisation_is_over_all_valid_entries():
    a = torch.tensor([[1.0, 2.0], [3.0, 1e9]])
    valid = torch.tensor([[True, True], [True, False]])
    whitened = normalize_advantages(a, valid)
    assert whitened[valid].mean().item() == pytest.approx(0.0, abs=1e-6)
    assert whitened[valid].std().item() == pytest.approx(1.0, abs=1e-5)
    assert whitened[~valid].item() == 0.0


def test_shapes_are_checked():
    one = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="T, E"):
        gae(torch.zeros(2, 4), one, one, one, one.bool(), one.bool(), one.bool(), 0.9)
