"""PPO samples/s: minibatches of stored prefixes against minibatches whose images are encoded again (no gradients).

Both sides are the same updater, model and rollout; only the buffer differs. The other side encodes once per minibatch
for all denoise steps, and as cheaply as we know how, so the gain is that of storing alone.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from benchmarks import real_ratio_model as model
from benchmarks.harness import Row, Settings, alternate, rate
from rlft.config.learning import GuardConfig, TrainConfig
from rlft.config.schema import RunConfig
from rlft.learn.updater import Updater
from rlft.objective.ppo import PPO
from rlft.policy.pi0.policy import Pi0Policy
from rlft.rollout.buffer import ChunkRows, Rollout

BUDGET_S = 62
NAME = "ppo_update_stored_prefix"
BATCHES = {50: 16, 10: 48}  # H -> B: work enough that a minibatch is not all overhead
SECONDS = 0.3  # of work in one measurement, at least
GOAL = 0.6  # of the ratio of operations
METHODS = {"flow_noise": "full chain, K=4", "flow_sde_single": "single step"}


def run(settings: Settings) -> Iterator[Row]:
    """Both horizons, the full chain and the single stochastic step."""
    size = "demo" if settings.quick else "wide"
    for horizon in (50,) if settings.quick else (50, 10):
        for method in METHODS:
            yield compare(size, horizon, method, settings.pairs)


def compare(size: str, horizon: int, method: str, pairs: int) -> Row:
    """One row: both sides in turns."""
    stored, images = (Side(size, horizon, method, prefix=prefix, batch=BATCHES[horizon]) for prefix in (True, False))
    check_equal(stored.update(1), images.update(1))
    epochs = max(1, round(SECONDS * rate(lambda: stored.update(1)["updates"])))
    ours, theirs = (lambda: stored.update(epochs)["samples"]), (lambda: images.update(1)["samples"])
    measured = alternate(ours, theirs, pairs, warm_up=0)
    facts = model.facts(stored.policy, size, horizon)
    flops = model.update_ratio(size, horizon, facts["prompt_tokens"], method)
    row = measured.row(
        NAME,
        f"{METHODS[method]}, H={horizon}",
        unit="samples/s",
        baseline="the same update, images encoded once per minibatch",
        goal=GOAL * flops,
        facts=facts
        | {
            "flop_ratio": flops,
            "batch_size": BATCHES[horizon],
            "buffer_bytes_stored": stored.buffer.nbytes(),
            "buffer_bytes_images": images.buffer.nbytes(),
        },
    )
    return row if row.met else explained(row, stored, images)


def explained(row: Row, stored: "Side", images: "Side") -> Row:
    """The row with what limits it: where the time goes on either side."""
    ours, theirs = model.time_shares(lambda: stored.update(1)), model.time_shares(lambda: images.update(1))
    text = (
        f"{row.facts['flop_ratio']:.1f} times fewer operations give {row.value:.1f} times the speed. Matrix products "
        f"take {ours['matrix products']:.0%} of our update's time ({theirs['matrix products']:.0%} with images). The "
        f"rest, which the ratio does not count, is attention {ours['attention']:.0%}, activations, norms and residuals "
        f"{ours['element-wise']:.0%}, optimiser {ours['optimiser']:.0%}, others {ours['other']:.0%}; it grows with the "
        "expert's width, products with its square, and this expert is a sixth as wide as the real one."
    )
    return replace(row, explanation=text, facts={**row.facts, "time_shares": ours, "time_shares_images": theirs})


class Side:
    """A model, its optimisers and a rollout of B decisions on random images.

    Args:
        size: a key of ``real_ratio_model.SIZES``.
        horizon: H.
        method: sampler.
        prefix: store prefixes; otherwise images.
        batch: B.
    """

    def __init__(self, size: str, horizon: int, method: str, *, prefix: bool, batch: int) -> None:
        self.policy = model.make_policy(size, horizon)
        train = TrainConfig(batch_size=batch, n_critic_warmup_itr=0, use_early_stop=False)
        # One rollout is updated on again and again: the policy has moved on from it, which the guard would stop.
        cfg = RunConfig(train=train, guard=GuardConfig(max_first_log_ratio=1e30))
        self.objective = model.make_ppo(self.policy, method, cfg)
        self.buffer = filled(self.objective, self.policy, batch, prefix=prefix)
        self.buffer.assign(self.objective.signal(self.buffer).rows)
        self.updater = Updater(self.objective, train)

    def update(self, epochs: int) -> dict[str, float]:
        """So many epochs over the rollout; the updater's scalars."""
        self.updater.cfg = replace(self.updater.cfg, update_epochs=epochs)
        return self.updater.update(self.buffer, 1, torch.Generator().manual_seed(0))


def filled(objective: PPO, policy: Pi0Policy, rows: int, *, prefix: bool) -> Rollout:
    """A rollout without a simulator, T = 1: random images, random rewards, what the policy itself draws."""
    g = torch.Generator().manual_seed(1)
    inputs = policy.prepare(model.observations(policy, rows))
    with torch.no_grad():
        encoded = policy.encode(inputs)
    sampled = objective.sample(encoded, objective.actor.draws([g] * rows), None)
    rewards, no = torch.randn(rows, objective.actor.act_steps, generator=g), torch.zeros(rows, dtype=torch.bool)
    chunks = ChunkRows(rewards, torch.full((rows,), objective.actor.act_steps), ~no, no, no, torch.zeros(rows))
    rollout = Rollout(1, rows, model.CPU, model.CPU)
    kept = {"prefix": encoded} if prefix else {"inputs": inputs}
    rollout.add(0, range(rows), trace=sampled.trace, chunks=chunks, **kept)
    return rollout


def check_equal(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Refuse to compare sides that do not compute the same.

    Raises:
        AssertionError: a loss or a gradient's norm differs.
    """
    for name in ("total", "policy", "value", "kl", "actor_grad_norm"):
        a, b = ours[name], theirs[name]
        assert abs(a - b) <= 1e-3 * max(1.0, abs(b)), f"{name}: {a} with stored prefixes, {b} with images"
