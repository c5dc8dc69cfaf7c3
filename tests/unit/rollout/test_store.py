"""What the rollout keeps: the decision, and that it changes no number of the update."""

from dataclasses import dataclass

import pytest
import torch
from helpers.learners import decide, judge, make_ppo, random_draws, settings
from policy.pi0_cases import CPU, H, N, make_observation, make_policy

from rlft.errors import ConfigError
from rlft.learn.updater import Updater
from rlft.rollout.buffer import ChunkRows, Rollout
from rlft.rollout.store import choose_store
from rlft.rows import TensorRows

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
    with pytest.raises(ConfigError, match=r"buffer.store = auto.*-m rlft plan"):
        choose(free=99)


def filled(model, *, store):
    """Two decisions of N environments that end in the second; prefixes are stored, or model inputs."""
    rollout, policy = Rollout(2, N, CPU, CPU), model.actor.policy
    for t in range(2):
        inputs = policy.prepare(make_observation(seed=t))
        with torch.no_grad():
            prefix = policy.encode(inputs)
        kept = {"prefix": prefix} if store == "prefix" else {"inputs": inputs}
        rewards = torch.randn(N, model.actor.act_steps, generator=torch.Generator().manual_seed(t))
        decide(model, rollout, t, prefix, random_draws(model.actor, N, 5 + t), rewards, ends=t == 1, kept=kept)
    rollout.trace.latent += 0.1
    return rollout


def update(kind, method, *, store, train_vlm, micro=None):
    """Losses of one epoch in one minibatch, and the gradients of the action expert."""
    cfg = settings(batch_size=2 * N, micro_batch_size=micro, ent_coef=0.01, normalize_advantage=False)
    how = {"method": method, "steps": 3, "std": (0.1, 0.3), "learned": True, "act_steps": H - 1, "explored": [0, 1, 2]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make_ppo(make_policy(kind, train_vlm=train_vlm), cfg, **how)
    rollout = filled(model, store=store)
    judge(model, rollout)
    (scalars,) = Updater(model, cfg.train).gradients(rollout, 1, torch.Generator().manual_seed(1))
    expert = {name: p.grad for name, p in model.named_parameters() if p.grad is not None and "paligemma." not in name}
    return scalars, expert


@pytest.mark.parametrize("kind", ["small", "small_pi05"])
@pytest.mark.parametrize("method", ["flow_noise", "flow_sde_single"])
def test_stored_prefixes_stored_pictures_and_a_trained_prefix_give_the_same_losses_and_gradients(kind, method):
    reference, expected = update(kind, method, store="prefix", train_vlm=False)
    assert max(float(grad.abs().max()) for grad in expected.values()) > 1e-3
    for changes in (
        {"store": "images", "train_vlm": False},
        {"store": "images", "train_vlm": True},
        {"store": "prefix", "train_vlm": False, "micro": 4},
        {"store": "images", "train_vlm": True, "micro": 4},
    ):
        scalars, gradients = update(kind, method, **changes)
        assert scalars == pytest.approx(reference, rel=2e-5, abs=1e-6), changes
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            near = 1e-5 * float(expected[name].abs().max()) + 1e-7
            torch.testing.assert_close(gradient, expected[name], atol=near, rtol=1e-4, msg=f"{name} {changes}")


@dataclass
class Kept(TensorRows):
    number: torch.Tensor
    sometimes: torch.Tensor | None = None


@dataclass
class KeptElse(TensorRows):
    number: torch.Tensor


def blank_chunks(n):
    return ChunkRows(torch.zeros(n, 1), torch.ones(n, dtype=torch.int64), *torch.zeros(3, n, dtype=torch.bool))


def test_what_nobody_declared_is_refused_and_never_left_out():
    rollout = Rollout(2, 2, CPU, CPU)
    rollout.add(0, range(2), trace=Kept(torch.zeros(2)), chunks=blank_chunks(2))
    for trace in (Kept(torch.zeros(2), torch.zeros(2)), KeptElse(torch.zeros(2))):
        with pytest.raises(ValueError, match=r"trace is .* at decision 1; wanted Kept\(number\)"):
            rollout.add(1, range(2), trace=trace, chunks=blank_chunks(2))
    with pytest.raises(ValueError, match=r"number has shape \(2, 3\) at decision 1; wanted \(2,\)"):
        rollout.add(1, range(2), trace=Kept(torch.zeros(2, 3)), chunks=blank_chunks(2))
    with pytest.raises(TypeError, match="value"):
        rollout.add(1, range(2), trace=Kept(torch.zeros(2)), chunks=blank_chunks(2), value=torch.zeros(2))
    with pytest.raises(ValueError, match=r"KeptElse.number has shape \(2,\); wanted \[2, 2, ...\]"):
        rollout.assign(KeptElse(torch.zeros(2)))


def test_a_longer_prompt_makes_room_and_a_shorter_one_is_padded():
    rollout = Rollout(3, 2, CPU, CPU)
    policy = make_policy()
    for t, task in enumerate(("Push it", "Push the cube to the goal region.", "Pull")):
        obs = make_observation(2, seed=t)
        obs.task = [task, task]
        with torch.no_grad():
            prefix = policy.encode(policy.prepare(obs))
        rollout.add(t, range(2), prefix=prefix, trace=Kept(torch.zeros(2)), chunks=blank_chunks(2))
        last = prefix
    stored = rollout.prefix
    assert stored.kv.shape[0] == 3
    tokens = last.mask.shape[1]
    assert torch.equal(stored.kv[2][..., :tokens, :], last.kv)
    assert not stored.mask[2, :, tokens:].any()
    x, t = torch.randn(2, H, 32, generator=torch.Generator().manual_seed(0)), torch.full((2,), 0.5)
    padded = stored.map(lambda part: part[2])
    with torch.no_grad():
        torch.testing.assert_close(policy.velocity(padded, x, t)[0], policy.velocity(last, x, t)[0], atol=5e-6, rtol=0)
