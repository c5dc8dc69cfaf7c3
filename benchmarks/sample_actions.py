"""Chunks/s: our sampler against lerobot's ``PI0Policy.predict_action_chunk``, with the same weights and noise.

Both sides start from prepared inputs (images resized, prompt tokenised, state normalised) and end at the chunk in
model units; that they give the same numbers is checked first. lerobot pads every prompt to 48 tokens; what it gains
from the prompt's own length is measured too, and stands in the facts.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import real_ratio_model as model
from benchmarks.harness import Pairs, Row, Settings, rate
from rlft.policy.actor import Actor
from rlft.policy.denoise import integrate_ode
from rlft.policy.pi0.policy import Pi0Policy
from rlft.rows import PolicyInput

BUDGET_S = 62
NAME = "sample_actions"
GOAL = 1.5
HORIZON = {"demo": 5, "deep": 50}  # the demo's, and lerobot's default
CASES = {  # (B, K): K is 10 by lerobot's default, and 4 in rollouts; the larger size has not the time for all
    "demo": ((1, 10), (1, 4), (8, 10), (8, 4), (32, 10), (32, 4)),
    "deep": ((1, 10), (1, 4), (8, 10), (32, 4)),
}
SECONDS = 0.1  # of work in one measurement, at least
CLOSE = 1e-4  # largest difference between the sides' actions


def run(settings: Settings) -> Iterator[Row]:
    """The rollout's sampler, then evaluation's, at either size; what takes longest comes last."""
    for size, horizon in HORIZON.items():
        if settings.quick and size != "demo":
            continue
        cases = Cases(size, horizon, settings.pairs)
        yield cases.exploring(8)
        for batch, steps in CASES[size]:
            yield cases.plain(batch, steps, trimmed=size == "demo" or batch == 1)


class Cases:
    """The comparisons at one size.

    Args:
        size: a key of ``real_ratio_model.SIZES``.
        horizon: H.
        pairs: pairs of each comparison.
    """

    def __init__(self, size: str, horizon: int, pairs: int) -> None:
        from benchmarks.lerobot_side import lerobot_policy, make_batch

        torch.set_num_threads(model.threads(size))
        self.size, self.horizon, self.pairs = size, horizon, pairs
        self.policy = model.make_policy(size, horizon)
        self.lerobot = lerobot_policy(self.policy, own_weights=False)
        self.batch: Callable[..., dict[str, Any]] = make_batch

    def plain(self, batch: int, steps: int, *, trimmed: bool = True) -> Row:
        """Evaluation's sampler: encode, then K steps of the flow's ODE.

        Args:
            batch: n.
            steps: K.
            trimmed: measure lerobot with prompts of their own length too.
        """
        policy = self.policy
        obs = model.observations(policy, batch)
        inputs, noise = policy.prepare(obs), self._noise(batch)
        default, own = policy.config.tokenizer_max_length, policy.prompt_length
        lengths = (default, own) if trimmed else (default,)
        theirs = [self._theirs(self.batch(policy, obs, token_length=n), noise, steps) for n in lengths]

        def ours() -> Tensor:
            return sample(policy, inputs, noise, steps)

        apart = [float((ours()[..., list(policy.real_dims)] - side()).abs().max()) for side in theirs]
        assert max(apart) <= CLOSE, f"the sides' actions are {max(apart):.1e} apart"
        rates = in_turns([ours, *theirs], batch, self.pairs)
        row = Pairs(rates[0], rates[1]).row(
            NAME,
            f"{self.size}, B={batch}, K={steps}, H={self.horizon}",
            unit="chunks/s",
            baseline=f"lerobot's predict_action_chunk, prompts padded to {default} tokens",
            goal=GOAL,
            facts=model.facts(policy, self.size, self.horizon)
            | {
                "largest_difference": max(apart),
                "ratio_with_prompts_of_own_length": [statistics.median(Pairs(rates[0], r).ratios) for r in rates[2:]],
                "flop_ratio": self._flops(steps, default),
                "flop_ratio_with_prompts_of_own_length": self._flops(steps, own),
                "flop_ratio_real": model.sampling_ratio(model.real_network(self.horizon), default, steps),
            },
        )
        return row if row.met else replace(row, explanation=self._explanation(steps, ours, theirs[0]))

    def exploring(self, batch: int) -> Row:
        """The rollout's sampler: noise head, log-probabilities, value; against lerobot's plain one."""
        policy, steps = self.policy, model.DENOISE_STEPS
        actor = model.make_ppo(policy, "flow_noise").actor
        obs = model.observations(policy, batch)
        inputs = policy.prepare(obs)
        noise = torch.randn(
            batch, steps + 1, self.horizon, policy.action_width, generator=torch.Generator().manual_seed(0)
        )
        default = policy.config.tokenizer_max_length
        theirs = self._theirs(self.batch(policy, obs, token_length=default), noise[:, 0], steps)
        rates = in_turns([lambda: explore(policy, actor, inputs, noise), theirs], batch, self.pairs)
        return Pairs(*rates).row(
            NAME,
            f"{self.size}, exploring, B={batch}, K={steps}, H={self.horizon}",
            unit="chunks/s",
            baseline=f"lerobot's predict_action_chunk (no exploration), prompts padded to {default} tokens",
            facts=model.facts(policy, self.size, self.horizon),
        )

    def _noise(self, batch: int) -> Tensor:
        shape = (batch, self.horizon, self.policy.action_width)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def _theirs(self, batch: dict[str, Any], noise: Tensor, steps: int) -> Callable[[], Tensor]:
        return lambda: self.lerobot.predict_action_chunk(batch, noise=noise, num_steps=steps)

    def _flops(self, steps: int, tokens: int) -> float:
        network = model.network(self.size, self.horizon, self.policy.prompt_length)
        return model.sampling_ratio(network, tokens, steps)

    def _explanation(self, steps: int, ours: Callable[[], Any], theirs: Callable[[], Any]) -> str:
        (mine, own_calls), (other, their_calls) = model.operators(ours), model.operators(theirs)
        flops = self._flops(steps, self.policy.config.tokenizer_max_length)
        return (
            f"lerobot computes {flops:.2f} times as much: it pads the prompt to 48 tokens, and finishes a last layer "
            f"that nobody reads. Matrix products, for which both call the same kernels, take "
            f"{mine['matrix products']:.0%} of our time and {other['matrix products']:.0%} of its own; small batches "
            f"spend the rest on starting operators, {own_calls} here and {their_calls} there."
        )


@torch.no_grad()
def sample(policy: Pi0Policy, inputs: PolicyInput, noise: Tensor, steps: int) -> Tensor:
    """Evaluation's chunk, ``[n, H, D]``."""
    return integrate_ode(policy, policy.encode(inputs), noise, steps)


@torch.no_grad()
def explore(policy: Pi0Policy, actor: Actor, inputs: PolicyInput, noise: Tensor) -> Tensor:
    """The rollout's chunk with its log-probability and value, ``[n, H, D]``."""
    return actor.sample(policy.encode(inputs), noise, torch.zeros(len(noise), dtype=torch.int64)).actions


def in_turns(sides: Sequence[Callable[[], Any]], units: int, rounds: int) -> list[list[float]]:
    """Rates of several sides, measured one after another in every round; the first to go changes from round to round.

    Args:
        sides: each call does ``units`` units of work.
        units: of one call.
        rounds: measurements of each side.
    """
    calls = [max(1, round(SECONDS * rate(partial(_repeat, side, 1, 1)))) for side in sides]
    rates: list[list[float]] = [[] for _ in sides]
    for turn in range(rounds):
        for i in [(turn + j) % len(sides) for j in range(len(sides))]:
            rates[i].append(rate(partial(_repeat, sides[i], calls[i], units)))
    return rates


def _repeat(side: Callable[[], Any], calls: int, units: int) -> float:
    for _ in range(calls):
        side()
    return float(calls * units)
