"""PPO against problems whose answer is known: a bandit's optimum, gradients in closed form, exact no-ops."""

import copy
import math

import pytest
import torch
from helpers.learners import judge, make_actor, make_ppo, one_step, settings
from helpers.toy_policies import ConstantTargetPolicy, MlpPolicy, NoPrefix, repeat_rows
from torch import nn

from rlft.config.learning import GuardConfig, OptimizerConfig
from rlft.errors import DivergedError
from rlft.learn.updater import Updater
from rlft.objective.ppo import value_loss
from rlft.objective.surrogate import clipped_surrogate
from rlft.policy.denoise import log_prob_terms, make_schedule


class ContextualTargetPolicy(nn.Module):
    """Pulls the chunk towards ``context @ weight``; the bandit's optimum is a particular weight."""

    def __init__(self, context=2, width=2):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(context, width))
        self.horizon, self.action_width, self.feature_dim = 1, width, 4

    def velocity(self, prefix, x, t):
        target = (repeat_rows(prefix.mask, x.shape[0]) @ self.weight)[:, None]
        return (x - target) / t[:, None, None], x.new_ones(x.shape[0], 1, 4)

    def actor_parameters(self):
        return [self.weight]


@pytest.fixture(autouse=True)
def _seeded_initial_weights():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def config(**changes):
    base = {"batch_size": 128, "update_epochs": 4, "n_critic_warmup_itr": 0, "max_grad_norm": None, "clip_ratio": 0.2}
    return settings(**(base | changes))


def generator():
    return torch.Generator().manual_seed(0)


def update(objective, rollout, iteration=0, generator=None):
    cfg = objective.cfg
    updater = Updater(objective, cfg.train, cfg.guard)
    return updater.update(rollout, iteration, generator or torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", ["flow_noise", "flow_sde_single"])
def test_bandit_reaches_its_analytic_optimum(method):
    """Reward -|a - c W|^2 through a K = 4 chain: the best policy's expected reward is minus its own variance."""
    truth = torch.tensor([[0.8, -0.5], [0.3, 0.9]])
    rates = {"actor_optimizer": OptimizerConfig(lr=3e-2), "critic_optimizer": OptimizerConfig(lr=1e-2)}
    model = make_ppo(ContextualTargetPolicy(), config(**rates, lr_schedule="linear", n_train_itr=60), method=method)
    updater, g = Updater(model, model.cfg.train), generator()

    def play(rows, seed):
        context = torch.randn(rows, 2, generator=g)
        return one_step(model, NoPrefix(context), lambda x: -((x[:, 0] - context @ truth) ** 2).sum(-1), seed)

    for i in range(60):
        rollout = play(512, seed=i)
        judge(model, rollout)
        updater.update(rollout, i, g)
    r = play(20_000, seed=1000).chunks.rewards.sum(-1)
    if method == "flow_noise":
        optimum = -2 * 0.15**2
    else:  # a quarter of the rows draw their last step: its own noise, and its share of the first noise
        last = float(model.actor.schedule.std[-1]) ** 2 + float(model.actor.schedule.noise_coef[-1]) ** 2
        optimum = -2 * 0.25 * last
    assert float(r.mean()) == pytest.approx(optimum, rel=0.1)
    assert float((model.actor.policy.weight.detach() - truth).abs().max()) < 0.08


def test_score_function_gradient_agrees_with_the_reparameterised_one():
    """E[A grad log p] equals grad E[r] for a differentiable reward, within Monte-Carlo error."""
    policy = ConstantTargetPolicy(width=2)
    actor = make_actor(policy, std=(0.3, 0.30003))
    n = 60_000
    noise = torch.randn(n, 5, 1, 2, generator=generator())
    goal = torch.tensor([0.5, -1.0])
    prefix = NoPrefix(torch.zeros(n, 1))
    sample = actor.sample(prefix, noise, torch.zeros(n, dtype=torch.int64))
    r = -((sample.actions[:, 0] - goal) ** 2).sum(-1)
    log_prob = actor.evaluate(prefix, sample.trace.chain, sample.trace.stochastic_step).log_prob.joint(torch.ones(n))
    (score,) = torch.autograd.grad(((r - r.mean()) * log_prob).mean(), policy.theta)
    x = noise[:, 0]
    for k in range(4):
        mean, std, _ = actor.step_dist(prefix, x, torch.full((n,), k), torch.ones(n, dtype=torch.bool))
        x = mean + std * noise[:, k + 1]
    (pathwise,) = torch.autograd.grad(-((x[:, 0] - goal) ** 2).sum(-1).mean(), policy.theta)
    assert torch.allclose(pathwise, 2 * goal, atol=0.02)
    assert torch.allclose(score, pathwise, atol=0.08)


def mlp_rollout(policy=None, *, method="flow_noise", learned=True, **changes):
    """40 decisions in a rollout that has been judged."""
    std = (0.15, 0.3) if learned else (0.15, 0.150015)
    how = {"method": method, "std": std, "learned": learned, "act_steps": 2, "explored": [0, 2]}
    model = make_ppo(policy or MlpPolicy(), config(**changes), **how)
    context = torch.randn(40, 2, generator=torch.Generator().manual_seed(5))
    rollout = one_step(model, NoPrefix(context), lambda a: a[:, 0, 0] - a[:, 1, 2] ** 2, seed=6)
    judge(model, rollout)
    return model, rollout


@pytest.mark.parametrize("method", ["flow_noise", "flow_sde", "flow_sde_single", "flow_cps"])
def test_ratio_is_exactly_one_before_the_first_step(method):
    model, rollout = mlp_rollout(method=method, batch_size=40)
    model.recompute_old(rollout)
    log_ratio, _ = model.evaluate(rollout.rows(torch.arange(40)))
    assert log_ratio.abs().max().item() == 0.0


@pytest.mark.parametrize("method", ["flow_noise", "flow_sde", "flow_cps"])
def test_ratio_is_one_from_the_rollout_itself_and_not_under_a_shifted_grid(method):
    model, rollout = mlp_rollout(method=method, batch_size=40, update_epochs=1)
    assert update(model, rollout)["first_max_log_ratio"] < 1e-4
    model, rollout = mlp_rollout(method=method, batch_size=40, update_epochs=1)
    model.actor.schedule.t.sub_(0.01).clamp_(min=1e-3)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DivergedError, match=r"differ from the stored ones by 0\.\d+ joint nats; at most 0\.01") as stop:
        update(model, rollout)
    assert stop.value.exit_code == 3
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_micro_batches_accumulate_the_same_gradient():
    gradients = []
    for micro in (None, 7):
        torch.manual_seed(0)
        model, rollout = mlp_rollout(batch_size=40, micro_batch_size=micro, ent_coef=0.01)
        (_,) = Updater(model, model.cfg.train).gradients(rollout, 0, generator())
        gradients.append(torch.cat([p.grad.flatten() for p in model.actor.parameters_that_train()]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


def test_critic_warm_up_moves_the_critic_alone():
    model, rollout = mlp_rollout(batch_size=16, n_critic_warmup_itr=1)
    before = copy.deepcopy(model.state_dict())
    update(model, rollout)
    changed = {k.split(".")[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"critic"}


def test_a_non_finite_update_changes_nothing_and_too_many_stop_the_run():
    model, rollout = mlp_rollout(batch_size=20, max_skipped_updates=3)
    rollout.signal.advantage[:] = math.nan
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DivergedError, match="max_skipped_updates"):
        update(model, rollout)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("spoiled", ["advantage", "invalid"])
def test_an_iteration_without_an_applied_update_is_nan_and_too_many_stop_the_run(spoiled):
    """One update per iteration (algo=original), and its loss is not finite; or every decision was invalid."""
    model, rollout = mlp_rollout(batch_size=40, update_epochs=1)
    if spoiled == "advantage":
        rollout.signal.advantage[:] = math.nan
    else:
        rollout.chunks.invalid[:] = True
    updater = Updater(model, model.cfg.train, GuardConfig(max_idle_iterations=3))
    for iteration in range(2):
        metrics = updater.update(rollout, iteration, generator())
        assert metrics["updates"] == 0.0
        assert metrics["updates_skipped"] == float(spoiled == "advantage")
        assert all(math.isnan(metrics[x]) for x in ("total", *model.scalars, "actor_grad_norm", "critic_grad_norm"))
    with pytest.raises(DivergedError, match="max_idle_iterations"):
        updater.update(rollout, 2, generator())


def test_means_are_over_the_applied_minibatches_alone():
    """The minibatch that passes the target is not applied: it is in no mean, and maxima are maxima."""
    rate = OptimizerConfig(lr=1e-2)
    model, rollout = mlp_rollout(batch_size=20, update_epochs=50, target_kl=0.05, actor_optimizer=rate)
    updater = Updater(model, model.cfg.train)
    seen, apply = [], updater._apply

    def spy(metrics, training):
        applied = apply(metrics, training)
        seen.append(dict(metrics))
        return applied

    updater._apply = spy
    metrics = updater.update(rollout, 0, generator())
    assert metrics["stopped_by_kl"] == 1.0
    assert metrics["updates"] == len(seen)
    assert 1 < len(seen) < 100
    for name in ("kl", "policy", "actor_grad_norm", "critic_grad_norm"):
        assert metrics[name] == pytest.approx(sum(one[name] for one in seen) / len(seen)), name
    assert metrics["max_log_ratio"] == max(one["max_log_ratio"] for one in seen)
    assert metrics["kl_last"] > 0.05 > max(one["kl"] for one in seen)


def test_critic_warm_up_builds_no_graph_through_the_policy_and_gives_the_same_value():
    model, rollout = mlp_rollout(n_critic_warmup_itr=1)
    (warm_up, warm), (_, whole) = (model.loss(rollout.rows(torch.arange(40)), iteration) for iteration in (0, 1))
    for name in ("policy", "value", "entropy", "kl"):
        assert torch.equal(whole[name], warm[name]), name
    assert torch.equal(warm_up, warm["value"])
    assert whole["policy"].requires_grad
    assert not warm["policy"].requires_grad
    assert warm["value"].requires_grad


class Rounded(MlpPolicy):
    """A network whose rows are rounded differently in batches of another size, as bfloat16 kernels do."""

    def velocity(self, prefix, x, t):
        v, features = super().velocity(prefix, x, t)
        step = 2.0**-7 * (1.0 + 0.3 * (len(x) % 7))
        return (v / step).round() * step, features


def test_low_precision_recomputes_the_rollouts_log_probs_and_exact_products_do_not():
    model, rollout = mlp_rollout(Rounded(), learned=False, exact=False, batch_size=40, update_epochs=1)
    metrics = update(model, rollout)
    assert metrics["first_max_log_ratio"] == 0.0
    assert metrics["rollout_max_log_ratio"] > 0.05
    model, rollout = mlp_rollout(Rounded(), learned=False, batch_size=40, update_epochs=1)
    with pytest.raises(DivergedError, match="max_first_log_ratio"):
        update(model, rollout)


def test_low_precision_without_recomputation_is_warned_of(caplog):
    how = {"batch_size": 40, "update_epochs": 1, "recompute_old_logprob": False}
    model, rollout = mlp_rollout(Rounded(), learned=False, exact=False, **how)
    metrics = update(model, rollout)
    assert metrics["first_max_log_ratio"] > 0.02
    assert math.isnan(metrics["rollout_max_log_ratio"])
    (warning,) = [record.getMessage() for record in caplog.records if "before the first step" in record.message]
    assert "clip range is 0.2" in warning


def test_minibatches_are_shuffled_anew_every_epoch_and_cover_everything():
    _, rollout = mlp_rollout()
    rollout.trace.value[0] = torch.arange(40.0)
    g = generator()
    epochs = [torch.cat([x.trace.value for x in rollout.epoch(16, None, g)]) for _ in range(2)]
    assert sorted(epochs[0].tolist()) == list(range(40))
    assert not torch.equal(epochs[0], epochs[1])


def test_parts_make_up_their_minibatch():
    _, rollout = mlp_rollout()
    parts = list(rollout.epoch(16, 6, generator()))
    assert [len(part) for part in parts] == [6, 6, 4, 6, 6, 4, 6, 2]
    assert [part.is_last for part in parts] == [False, False, True, False, False, True, False, True]
    assert sum(part.weight for part in parts) == pytest.approx(3.0)


def test_invalid_and_dropped_decisions_are_never_trained_on():
    _, rollout = mlp_rollout()
    rollout.chunks.invalid[0, :30] = True
    rollout.assign(rollout.signal, dropped=torch.arange(40)[None] > 36)
    assert sum(len(batch) for batch in rollout.epoch(16, None, generator())) == 7


def losses(log_ratio, advantage, divisor=1.0, **changes):
    cfg = config(**changes).train
    return clipped_surrogate(torch.tensor(log_ratio), torch.tensor(advantage), cfg, log_prob_divisor=divisor)


def test_clipping_by_hand():
    up, down = math.log(1.5), math.log(0.5)
    for log_ratio, advantage, expected in ((up, 1.0, -1.2), (up, -1.0, 1.5), (down, 1.0, -0.5), (down, -1.0, 0.8)):
        assert losses([log_ratio], [advantage])["policy"].item() == pytest.approx(expected)
    assert losses([up, 0.0], [1.0, 1.0])["clip_fraction"].item() == 0.5


def test_averaged_mode_divides_by_the_number_of_densities_and_keeps_kl_in_joint_nats():
    terms = log_prob_terms(make_schedule("flow_noise", 4, 0.5), act_steps=5, explored_dims=7)
    assert terms == (4 + 1) * 5 * 7
    joint, averaged = losses([1.75], [1.0]), losses([1.75], [1.0], divisor=float(terms))
    assert averaged["policy"].item() == pytest.approx(-math.exp(1.75 / terms))
    assert averaged["kl"].item() == pytest.approx(joint["kl"].item())
    assert joint["kl"].item() == pytest.approx(math.exp(1.75) - 1 - 1.75)


def test_value_clipping_takes_the_larger_error():
    value, old, target = torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([3.0])
    assert value_loss(value, old, target, 0.5).item() == pytest.approx(0.5 * (0.5 - 3.0) ** 2)
    assert value_loss(value, old, target, None).item() == pytest.approx(0.5)
