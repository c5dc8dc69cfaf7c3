"""PPO against problems whose answer is known: a bandit's optimum, gradients in closed form, exact no-ops."""

import copy
import math

import pytest
import torch
from helpers.toy_policies import ConstantTargetPolicy, MlpPolicy, NoPrefix, repeat_rows
from torch import nn

from rlft.config.learning import GuardConfig, OptimizerConfig, TrainConfig
from rlft.errors import DivergedError
from rlft.learn.gae import assign_advantages
from rlft.learn.ppo import SCALARS, PpoUpdater, ppo_losses
from rlft.policy.actor_critic import ActorCritic
from rlft.policy.critic import Critic
from rlft.policy.denoise import log_prob_terms, make_schedule
from rlft.policy.noise import NoiseHead
from rlft.rollout.buffer import RolloutBuffer

CPU = torch.device("cpu")


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


def make_model(policy, *, method="flow_noise", std=0.15, learned=False, act_steps=None, explored=None, level=0.5):
    noise = NoiseHead(
        policy.feature_dim, policy.action_width, std, std * 1.0001 if not learned else std * 2, learned=learned
    )
    dims = explored if explored is not None else range(policy.action_width)
    critic = Critic(policy.feature_dim, 0, [8])
    return ActorCritic(policy, noise, critic, make_schedule(method, 4, level), act_steps or policy.horizon, dims)


def bandit_rollout(model, context, reward, seed):
    """One decision per row that ends at once: T = 1."""
    n = len(context)
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, 5, model.policy.horizon, model.policy.action_width, generator=g)
    drawn = torch.randint(0, 4, (n,), generator=g)
    sample = model.sample(NoPrefix(context), noise, drawn, None)
    executed = torch.full((n,), model.act_steps)
    r = reward(context, sample.actions)
    zeros, no = torch.zeros(n), torch.zeros(n, dtype=torch.bool)
    buffer = RolloutBuffer(1, n, CPU, CPU)
    rewards = torch.zeros(n, model.act_steps)
    rewards[:, 0] = r
    buffer.add(
        0, prefix=NoPrefix(context), chain=sample.chain, drawn_step=sample.drawn_step, n_executed=executed,
        log_prob=sample.log_prob.joint(executed), value=sample.value, rewards=rewards,
        terminated=~no, truncated=no, invalid=no, final_value=zeros,
    )  # fmt: skip
    return buffer, r


def config(**changes):
    base = {"batch_size": 128, "update_epochs": 4, "n_critic_warmup_itr": 0, "max_grad_norm": None, "clip_ratio": 0.2}
    return TrainConfig(**(base | changes))


@pytest.mark.parametrize("method", ["flow_noise", "flow_sde_single"])
def test_bandit_reaches_its_analytic_optimum(method):
    """Reward -|a - c W|^2 through a K = 4 chain: the best policy's expected reward is minus its own variance."""
    truth = torch.tensor([[0.8, -0.5], [0.3, 0.9]])
    model = make_model(ContextualTargetPolicy(), method=method)
    rates = {"actor_optimizer": OptimizerConfig(lr=3e-2), "critic_optimizer": OptimizerConfig(lr=1e-2)}
    cfg = config(**rates, lr_schedule="linear", n_train_itr=60)
    updater = PpoUpdater(model, cfg, "sum")
    g = torch.Generator().manual_seed(0)

    def reward(context, actions):
        return -((actions[:, 0] - context @ truth) ** 2).sum(-1)

    for i in range(60):
        buffer, _ = bandit_rollout(model, torch.randn(512, 2, generator=g), reward, seed=i)
        assign_advantages(buffer, cfg)
        updater.update(buffer, i, g)
    _, r = bandit_rollout(model, torch.randn(20_000, 2, generator=g), reward, seed=1000)
    if method == "flow_noise":
        optimum = -2 * 0.15**2
    else:  # a quarter of the rows draw their last step: its own noise, and its share of the first noise
        last = float(model.schedule.std[-1]) ** 2 + float(model.schedule.noise_coef[-1]) ** 2
        optimum = -2 * 0.25 * last
    assert float(r.mean()) == pytest.approx(optimum, rel=0.1)
    assert float((model.policy.weight.detach() - truth).abs().max()) < 0.08


def test_score_function_gradient_agrees_with_the_reparameterised_one():
    """E[A grad log p] equals grad E[r] for a differentiable reward, within Monte-Carlo error."""
    policy = ConstantTargetPolicy(width=2)
    model = make_model(policy, std=0.3)
    n = 60_000
    noise = torch.randn(n, 5, 1, 2, generator=torch.Generator().manual_seed(0))
    goal = torch.tensor([0.5, -1.0])
    prefix = NoPrefix(torch.zeros(n, 1))
    sample = model.sample(prefix, noise, torch.zeros(n, dtype=torch.int64), None)
    r = -((sample.actions[:, 0] - goal) ** 2).sum(-1)
    log_prob = model.evaluate(prefix, sample.chain, sample.drawn_step, None).log_prob.joint(torch.ones(n))
    (score,) = torch.autograd.grad(((r - r.mean()) * log_prob).mean(), policy.theta)
    x = noise[:, 0]
    for k in range(4):
        mean, std, _ = model.step_dist(prefix, x, torch.full((n,), k), torch.ones(n, dtype=torch.bool))
        x = mean + std * noise[:, k + 1]
    (pathwise,) = torch.autograd.grad(-((x[:, 0] - goal) ** 2).sum(-1).mean(), policy.theta)
    assert torch.allclose(pathwise, 2 * goal, atol=0.02)
    assert torch.allclose(score, pathwise, atol=0.08)


def mlp_buffer(method="flow_noise", *, learned=True, n=40):
    model = make_model(MlpPolicy(), method=method, learned=learned, act_steps=2, explored=[0, 2])
    context = torch.randn(n, 2, generator=torch.Generator().manual_seed(5))
    buffer, _ = bandit_rollout(model, context, lambda c, a: a[:, 0, 0] - a[:, 1, 2] ** 2, seed=6)
    return model, buffer


@pytest.mark.parametrize("method", ["flow_noise", "flow_sde", "flow_sde_single", "flow_cps"])
def test_ratio_is_exactly_one_before_the_first_step(method):
    model, buffer = mlp_buffer(method)
    cfg = config(batch_size=40, update_epochs=1, recompute_old_logprob=True)
    assign_advantages(buffer, cfg)
    updater = PpoUpdater(model, cfg, "sum")
    updater.recompute_old(buffer)
    batch = next(iter([buffer.gather(torch.arange(40))]))
    evaluation = model.evaluate(batch.prefix, batch.chain, batch.drawn_step, None)
    difference = evaluation.log_prob.joint(batch.n_executed) - batch.log_prob
    assert difference.abs().max().item() == 0.0


@pytest.mark.parametrize("method", ["flow_noise", "flow_sde", "flow_cps"])
def test_ratio_is_one_from_the_rollout_itself_and_not_under_a_shifted_grid(method):
    model, buffer = mlp_buffer(method)
    cfg = config(batch_size=40, update_epochs=1)
    assign_advantages(buffer, cfg)
    metrics = PpoUpdater(model, cfg, "sum").update(buffer, 0, torch.Generator().manual_seed(0))
    assert metrics["first_max_log_ratio"] < 1e-4
    model, buffer = mlp_buffer(method)
    assign_advantages(buffer, cfg)
    model.schedule.t.sub_(0.01).clamp_(min=1e-3)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DivergedError, match=r"differ from the stored ones by 0\.\d+ joint nats; at most 0\.01") as stop:
        PpoUpdater(model, cfg, "sum").update(buffer, 0, torch.Generator().manual_seed(0))
    assert stop.value.exit_code == 3
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_micro_batches_accumulate_the_same_gradient():
    gradients = []
    for micro in (None, 7):
        torch.manual_seed(0)
        model, buffer = mlp_buffer()
        cfg = config(batch_size=40, micro_batch_size=micro, ent_coef=0.01)
        assign_advantages(buffer, cfg)
        updater = PpoUpdater(model, cfg, "sum")
        (_,) = updater.gradients(buffer, torch.Generator().manual_seed(0), actor=True)
        gradients.append(torch.cat([p.grad.flatten() for p in updater.actor_parameters]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


def test_critic_warm_up_moves_the_critic_alone():
    model, buffer = mlp_buffer()
    cfg = config(batch_size=16, n_critic_warmup_itr=1)
    assign_advantages(buffer, cfg)
    before = copy.deepcopy(model.state_dict())
    PpoUpdater(model, cfg, "sum").update(buffer, 0, torch.Generator().manual_seed(0))
    changed = {k.split(".")[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"critic"}


def test_a_non_finite_update_changes_nothing_and_too_many_stop_the_run():
    model, buffer = mlp_buffer()
    cfg = config(batch_size=20, max_skipped_updates=3)
    assign_advantages(buffer, cfg)
    buffer.column("advantage")[:] = math.nan
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DivergedError, match="max_skipped_updates"):
        PpoUpdater(model, cfg, "sum").update(buffer, 0, torch.Generator().manual_seed(0))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_an_iteration_without_an_applied_update_is_nan_and_too_many_stop_the_run():
    """One update per iteration (algo=original), and its loss is not finite; or every decision was invalid."""
    for spoil in ("advantage", "invalid"):
        model, buffer = mlp_buffer()
        cfg = config(batch_size=40, update_epochs=1)
        assign_advantages(buffer, cfg)
        buffer.column(spoil)[:] = math.nan if spoil == "advantage" else True
        updater = PpoUpdater(model, cfg, "sum", GuardConfig(max_idle_iterations=3))
        for iteration in range(2):
            metrics = updater.update(buffer, iteration, torch.Generator().manual_seed(0))
            assert metrics["updates"] == 0.0
            assert metrics["updates_skipped"] == float(spoil == "advantage")
            assert all(math.isnan(metrics[name]) for name in (*SCALARS, "actor_grad_norm", "critic_grad_norm"))
        with pytest.raises(DivergedError, match="max_idle_iterations"):
            updater.update(buffer, 2, torch.Generator().manual_seed(0))


def test_means_are_over_the_applied_minibatches_alone():
    """The minibatch that passes the target is not applied: it is in no mean, and maxima are maxima."""
    model, buffer = mlp_buffer()
    cfg = config(batch_size=20, update_epochs=50, target_kl=0.05, actor_optimizer=OptimizerConfig(lr=1e-2))
    assign_advantages(buffer, cfg)
    updater = PpoUpdater(model, cfg, "sum")
    seen, apply = [], updater._apply

    def spy(metrics, *, actor):
        applied = apply(metrics, actor=actor)
        seen.append(dict(metrics))
        return applied

    updater._apply = spy
    metrics = updater.update(buffer, 0, torch.Generator().manual_seed(0))
    assert metrics["stopped_by_kl"] == 1.0
    assert metrics["updates"] == len(seen) > 1
    for name in ("kl", "policy", "actor_grad_norm", "critic_grad_norm"):
        assert metrics[name] == pytest.approx(sum(one[name] for one in seen) / len(seen)), name
    assert metrics["max_log_ratio"] == max(one["max_log_ratio"] for one in seen)
    assert metrics["kl_last"] > 0.05 > max(one["kl"] for one in seen)


def test_critic_warm_up_builds_no_graph_through_the_policy_and_gives_the_same_value():
    model, buffer = mlp_buffer()
    batch = buffer.gather(torch.arange(40))
    whole, critic = (
        model.evaluate(batch.prefix, batch.chain, batch.drawn_step, None, actor=actor) for actor in (True, False)
    )
    assert torch.equal(whole.value, critic.value)
    assert torch.equal(whole.log_prob.action, critic.log_prob.action)
    assert whole.log_prob.action.requires_grad
    assert not critic.log_prob.action.requires_grad
    assert critic.value.requires_grad


class Rounded(MlpPolicy):
    """A network whose rows are rounded differently in batches of another size, as bfloat16 kernels do."""

    def velocity(self, prefix, x, t):
        v, features = super().velocity(prefix, x, t)
        step = 2.0**-7 * (1.0 + 0.3 * (len(x) % 7))
        return (v / step).round() * step, features


def rounded_buffer(explored=(0, 2)):
    model = make_model(Rounded(), act_steps=2, explored=list(explored))
    context = torch.randn(40, 2, generator=torch.Generator().manual_seed(5))
    buffer, _ = bandit_rollout(model, context, lambda c, a: a[:, 0, 0], seed=6)
    return model, buffer


def test_low_precision_recomputes_the_rollouts_log_probs_and_exact_products_do_not():
    model, buffer = rounded_buffer()
    cfg = config(batch_size=40, update_epochs=1)
    assign_advantages(buffer, cfg)
    metrics = PpoUpdater(model, cfg, "sum", exact=False).update(buffer, 0, torch.Generator().manual_seed(0))
    assert metrics["first_max_log_ratio"] == 0.0
    assert metrics["rollout_max_log_ratio"] > 0.05
    model, buffer = rounded_buffer()
    assign_advantages(buffer, cfg)
    with pytest.raises(DivergedError, match="max_first_log_ratio"):
        PpoUpdater(model, cfg, "sum", exact=True).update(buffer, 0, torch.Generator().manual_seed(0))


def test_low_precision_without_recomputation_is_warned_of(caplog):
    model, buffer = rounded_buffer()
    cfg = config(batch_size=40, update_epochs=1, recompute_old_logprob=False)
    assign_advantages(buffer, cfg)
    metrics = PpoUpdater(model, cfg, "sum", exact=False).update(buffer, 0, torch.Generator().manual_seed(0))
    assert metrics["first_max_log_ratio"] > 0.02
    assert math.isnan(metrics["rollout_max_log_ratio"])
    (warning,) = [record.getMessage() for record in caplog.records if "before the first step" in record.message]
    assert "clip range is 0.2" in warning


def test_kl_stop_ends_the_iteration_before_the_step_that_passed_it():
    model, buffer = mlp_buffer()
    cfg = config(batch_size=20, update_epochs=50, target_kl=0.05, actor_optimizer=OptimizerConfig(lr=1e-2))
    assign_advantages(buffer, cfg)
    metrics = PpoUpdater(model, cfg, "sum").update(buffer, 0, torch.Generator().manual_seed(0))
    assert metrics["stopped_by_kl"] == 1.0
    assert metrics["updates"] < 100
    assert metrics["kl_last"] > 0.05


def test_minibatches_are_shuffled_anew_every_epoch_and_cover_everything():
    _, buffer = mlp_buffer()
    buffer.column("value")[0] = torch.arange(40.0)
    g = torch.Generator().manual_seed(0)
    epochs = [torch.cat([b.value for b in minibatches(buffer, g)]) for _ in range(2)]
    assert sorted(epochs[0].tolist()) == list(range(40))
    assert not torch.equal(epochs[0], epochs[1])


def minibatches(buffer, g):
    for name in ("advantage", "target"):
        buffer._rows[name] = torch.zeros(1, 40)
    return [part.batch for part in buffer.epoch(16, None, g)]


def test_parts_make_up_their_minibatch():
    _, buffer = mlp_buffer()
    minibatches(buffer, torch.Generator())
    parts = list(buffer.epoch(16, 6, torch.Generator().manual_seed(0)))
    assert [len(part.batch) for part in parts] == [6, 6, 4, 6, 6, 4, 6, 2]
    assert [part.completes for part in parts] == [False, False, True, False, False, True, False, True]
    assert sum(part.weight for part in parts) == pytest.approx(3.0)


def test_invalid_decisions_are_never_trained_on():
    _, buffer = mlp_buffer()
    buffer.column("invalid")[0, :30] = True
    assert sum(len(b) for b in minibatches(buffer, torch.Generator().manual_seed(0))) == 10


def losses(log_ratio, advantage, **settings):
    n = len(log_ratio)
    z = torch.zeros(n)
    divisor = settings.pop("divisor", 1.0)
    return ppo_losses(
        torch.tensor(log_ratio), torch.tensor(advantage), z, z, z, z, config(**settings), log_prob_divisor=divisor
    )


def test_clipping_by_hand():
    up, down = math.log(1.5), math.log(0.5)
    assert losses([up], [1.0]).policy.item() == pytest.approx(-1.2)
    assert losses([up], [-1.0]).policy.item() == pytest.approx(1.5)
    assert losses([down], [1.0]).policy.item() == pytest.approx(-0.5)
    assert losses([down], [-1.0]).policy.item() == pytest.approx(0.8)
    assert losses([up, 0.0], [1.0, 1.0]).clip_fraction.item() == 0.5


def test_averaged_mode_divides_by_the_number_of_densities_and_keeps_kl_in_joint_nats():
    terms = log_prob_terms(make_schedule("flow_noise", 4, 0.5), act_steps=5, explored_dims=7)
    assert terms == (4 + 1) * 5 * 7
    joint, averaged = losses([1.75], [1.0]), losses([1.75], [1.0], divisor=float(terms))
    assert averaged.policy.item() == pytest.approx(-math.exp(1.75 / terms))
    assert averaged.kl.item() == pytest.approx(joint.kl.item())
    assert joint.kl.item() == pytest.approx(math.exp(1.75) - 1 - 1.75)


def test_value_clipping_takes_the_larger_error():
    value, old, target = torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([3.0])
    z = torch.zeros(1)
    clipped = ppo_losses(z, z, value, old, target, z, config(clip_value=0.5))
    assert clipped.value.item() == pytest.approx(0.5 * (0.5 - 3.0) ** 2)
