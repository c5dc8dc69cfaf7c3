"""What the rollout keeps: the decision, and that it changes no number of the update."""

import pytest
import torch
from policy.pi0_cases import CPU, H, N, make_observation, make_policy

from rlft.config.learning import TrainConfig
from rlft.errors import ConfigError
from rlft.learn.gae import assign_advantages
from rlft.learn.ppo import PpoUpdater
from rlft.policy.actor_critic import ActorCritic
from rlft.policy.critic import Critic
from rlft.policy.denoise import make_schedule
from rlft.policy.noise import NoiseHead
from rlft.rollout.buffer import RolloutBuffer
from rlft.rollout.store import choose_store

NEEDED = {"prefix": 6_000, "images": 100}


def choose(setting="auto", *, train_vlm=False, free=10_000):
    return choose_store(setting, train_vlm=train_vlm, needed=NEEDED, free=free, device="cpu")


def test_a_frozen_prefix_is_kept_where_it_fits_and_the_arithmetic_is_told():
    choice = choose()
    assert choice.prefix
    assert "0.00 GB is within 60% of the 0.00 GB free on cpu" in choice.reason


def test_pictures_are_kept_where_prefixes_do_not_fit_or_change():
    assert choose(free=9_999).store == "images"
    assert "encodes them anew" in choose(free=9_999).reason
    assert choose(train_vlm=True).store == "images"
    assert "the VLM trains" in choose(train_vlm=True).reason


def test_what_is_asked_for_is_taken_or_refused_with_a_remedy():
    assert choose("prefix", free=6_000).store == "prefix"
    assert choose("images").store == "images"
    with pytest.raises(ConfigError, match=r"buffer.store = prefix.*try buffer.store=images, fewer env.num_envs"):
        choose("prefix", free=5_999)
    with pytest.raises(ConfigError, match=r"buffer.store = auto.*scripts/plan.py"):
        choose(free=99)


def rollout(model, *, store):
    """Two decisions of N environments that end in the second; prefixes are stored, or model inputs."""
    buffer = RolloutBuffer(2, N, CPU, CPU)
    generator = torch.Generator().manual_seed(5)
    steps, policy = model.schedule.num_steps, model.policy
    for t in range(2):
        inputs = policy.prepare(make_observation(seed=t))
        with torch.no_grad():
            prefix = policy.encode(inputs)
        noise = torch.randn(N, steps + 1, policy.horizon, policy.action_width, generator=generator)
        drawn = torch.randint(steps, (N,), generator=generator)
        sample = model.sample(prefix, noise, drawn, None)
        executed, no = torch.full((N,), model.act_steps), torch.zeros(N, dtype=torch.bool)
        buffer.add(
            t, prefix=prefix if store == "prefix" else None, inputs=inputs if store == "images" else None,
            chain=sample.chain, drawn_step=drawn, n_executed=executed, value=sample.value,
            log_prob=sample.log_prob.joint(executed) + 0.1, terminated=~no if t else no, truncated=no,
            invalid=no, rewards=torch.randn(N, model.act_steps, generator=generator), final_value=torch.zeros(N),
        )  # fmt: skip
    return buffer


def update(kind, method, *, store, train_vlm, micro=None):
    """Losses of one epoch in one minibatch, and the gradients of the action expert."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = make_policy(kind, train_vlm=train_vlm)
        noise = NoiseHead(policy.feature_dim, policy.action_width, 0.1, 0.3, learned=True)
        critic = Critic(policy.feature_dim, 0, [8])
    model = ActorCritic(policy, noise, critic, make_schedule(method, 3, 0.5), H - 1, [0, 1, 2])
    cfg = TrainConfig(batch_size=2 * N, micro_batch_size=micro, ent_coef=0.01, normalize_advantage=False)
    buffer = rollout(model, store=store)
    assign_advantages(buffer, cfg)
    (scalars,) = PpoUpdater(model, cfg, "sum").gradients(buffer, torch.Generator().manual_seed(1), actor=True)
    expert = {name: p.grad for name, p in model.named_parameters() if p.grad is not None and "paligemma." not in name}
    return scalars, expert


@pytest.mark.parametrize("kind", ["small", "small_pi05"])
@pytest.mark.parametrize("method", ["flow_noise", "flow_sde_single"])
def test_stored_prefixes_stored_pictures_and_a_trained_prefix_give_the_same_losses_and_gradients(kind, method):
    reference, expected = update(kind, method, store="prefix", train_vlm=False)
    assert max(float(grad.abs().max()) for grad in expected.values()) > 1e-3
    for settings in (
        {"store": "images", "train_vlm": False},
        {"store": "images", "train_vlm": True},
        {"store": "prefix", "train_vlm": False, "micro": 4},
        {"store": "images", "train_vlm": True, "micro": 4},
    ):
        scalars, gradients = update(kind, method, **settings)
        assert scalars == pytest.approx(reference, rel=2e-5, abs=1e-6), settings
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            near = 1e-5 * float(expected[name].abs().max()) + 1e-7
            torch.testing.assert_close(gradient, expected[name], atol=near, rtol=1e-4, msg=f"{name} {settings}")


def test_a_longer_prompt_makes_room_and_a_shorter_one_is_padded():
    buffer = RolloutBuffer(3, 2, CPU, CPU)
    policy = make_policy()
    for t, task in enumerate(("Push it", "Push the cube to the goal region.", "Pull")):
        obs = make_observation(2, seed=t)
        obs.task = [task, task]
        with torch.no_grad():
            prefix = policy.encode(policy.prepare(obs))
        buffer.add(t, prefix=prefix, value=torch.zeros(2), invalid=torch.zeros(2, dtype=torch.bool))
        last = prefix
    stored = buffer._bundles["prefix"]
    assert stored.kv.shape[0] == 3
    tokens = last.mask.shape[1]
    assert torch.equal(stored.kv[2][..., :tokens, :], last.kv)
    assert not stored.mask[2, :, tokens:].any()
    x, t = torch.randn(2, H, 32, generator=torch.Generator().manual_seed(0)), torch.full((2,), 0.5)
    padded = stored.map(lambda part: part[2])
    with torch.no_grad():
        torch.testing.assert_close(policy.velocity(padded, x, t)[0], policy.velocity(last, x, t)[0], atol=5e-6, rtol=0)
