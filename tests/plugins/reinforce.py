"""An objective of somebody else's: REINFORCE with the rollout's mean reward as its baseline."""

from dataclasses import dataclass

import torch

from rlft.objective.base import Objective, Sampled, Signal
from rlft.rows import TensorRows


@dataclass
class Beyond(TensorRows):
    """How much more a decision earned than the average one."""

    gain: torch.Tensor


class Reinforce(Objective):
    """Every decision is worth its own reward; one pass, no ratio."""

    scalars = ("log_prob",)

    def sample(self, prefix, draws, privileged):
        """Draw a chain."""
        drawn = self.actor.sample(prefix, draws.noise, draws.stochastic_step)
        return Sampled(drawn.actions, drawn.trace, drawn.mean_std)

    def signal(self, rollout):
        """Reward beyond the mean."""
        rewards = rollout.chunks.rewards.sum(-1)
        gain = rewards - rewards[rollout.valid].mean()
        return Signal(Beyond(gain), scalars={"reinforce/reward": rewards.mean().item()})

    def loss(self, batch, iteration):
        """Minus gain times log-probability."""
        found = self.actor.evaluate(self.prefix_of(batch), batch.trace.chain, batch.trace.stochastic_step)
        log_prob = found.log_prob.joint(batch.n_executed)
        return -(batch.signal.gain * log_prob).mean(), {"log_prob": log_prob.mean()}
