"""PPO with generalised advantages: the clipped surrogate, and a critic as its baseline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlft.config.learning import OptimizerConfig
from rlft.config.schema import RunConfig
from rlft.objective.base import Sampled, Signal
from rlft.objective.gae import chunk_discounts, chunk_returns, gae, normalize_advantages
from rlft.objective.surrogate import Advantage, ClippedSurrogate, clipped_surrogate
from rlft.placement import move
from rlft.policy.actor import Actor, ChainTrace, Draws
from rlft.policy.base import Prefix
from rlft.policy.heads import Critic
from rlft.rollout.buffer import MicroBatch, Rollout
from rlft.statistics import explained_variance


@dataclass
class PpoTrace(ChainTrace):
    """A chain's trace, and what the critic said of the observation."""

    value: Tensor  # float32 `[n]`
    privileged: Tensor | None  # float32 `[n, P]`, what it read beside features; None: nothing


@dataclass
class PpoSignal(Advantage):
    """An advantage, normalised over the rollout, and ``target``, float32 ``[n]``: what the value should have been."""

    target: Tensor


def value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """Half the mean squared error of ``[n]`` values, scalar; with ``clip``, the larger of it and the clipped value's.

    ``old_value`` is the critic's at the rollout, from which ``clip`` is counted; ``target`` is it plus the advantage
    (not normalised).
    """
    error = (value - target).square()
    if clip is not None:
        near = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.maximum(error, (near - target).square())
    return 0.5 * error.mean()


class PPO(ClippedSurrogate):
    """Proximal policy optimisation of whole denoising chains.

    ``critic.value_at``: ``first``: the value reads the features of the first drawing step, before anything that has a
    trained density was drawn, so that it is a baseline; ``all``: their mean over all drawing steps, as published, which
    takes part of the gradient away (docs/algorithm.md).
    """

    bootstraps = True
    scalars = ("policy", "value", *ClippedSurrogate.scalars[1:])

    def __init__(self, actor: Actor, cfg: RunConfig, privileged_dim: int = 0) -> None:
        super().__init__(actor, cfg, privileged_dim)
        seen = actor.policy.feature_dim if cfg.critic.inputs != "privileged" else 0
        read = privileged_dim if cfg.critic.inputs != "features" else 0
        self.critic = Critic(seen, read, cfg.critic.hidden_dims)

    def heads(self) -> dict[str, nn.Module]:
        """See :meth:`Objective.heads`."""
        return {**super().heads(), "critic": self.critic}

    def parameter_groups(self) -> dict[str, tuple[Sequence[nn.Parameter], OptimizerConfig]]:
        """See :meth:`Objective.parameter_groups`."""
        critic = (list(self.critic.parameters()), self.cfg.train.critic_optimizer)
        return {**super().parameter_groups(), "critic": critic}

    def trains(self, iteration: int) -> set[str]:
        """The critic alone while it warms up."""
        return {"critic"} if iteration < self.cfg.train.n_critic_warmup_itr else {"actor", "critic"}

    @torch.no_grad()
    def sample(self, prefix: Prefix, draws: Draws, privileged: Tensor | None) -> Sampled:
        """See :meth:`Objective.sample`."""
        drawn = self.actor.sample(prefix, draws.noise, draws.stochastic_step)
        value = self.critic(self._seen(drawn.features), privileged)
        trace = PpoTrace(**vars(drawn.trace), value=value, privileged=privileged)
        return Sampled(drawn.actions, trace, drawn.mean_std)

    @torch.no_grad()
    def final_values(self, privileged: Tensor | None, look: Callable[[], tuple[Prefix, Draws]]) -> Tensor:
        """See :meth:`Objective.final_values`; one pass of the network instead of K where the first step says it all."""
        if not self.critic.feature_dim:
            return self.critic(None, privileged)
        prefix, draws = look()
        if self.cfg.critic.value_at == "all" and not self.actor.schedule.single:
            return self.sample(prefix, draws, privileged).trace.value  # type: ignore[attr-defined]
        return self.critic(self.actor.first_features(prefix, draws.noise), privileged)

    def calibrate(self, rollout: Rollout) -> bool:
        """Take the privileged statistics from the first rollout, whose stored values are of the critic before them."""
        if not self.critic.privileged_dim or bool(self.critic.calibrated):
            return False
        self.critic.calibrate(move(rollout.trace.privileged.flatten(0, 1), rollout.policy_device))
        return True

    def signal(self, rollout: Rollout) -> Signal:
        """Advantage and value target."""
        chunks, value, train = rollout.chunks, rollout.trace.value, self.cfg.train
        returns = chunk_returns(chunks.rewards, train.gamma, train.gamma_per)
        discounts = chunk_discounts(chunks.n_executed, train.gamma, train.gamma_per)
        ends = (chunks.terminated, chunks.truncated, chunks.invalid)
        advantage = gae(returns, discounts, value, chunks.final_value, *ends, gae_lambda=train.gae_lambda)
        target, valid = advantage + value, rollout.valid
        if train.normalize_advantage:
            advantage = normalize_advantages(advantage, valid)
        value, wanted = value[valid], target[valid]
        scalars = {"value/mean": float(value.mean()), "value/target_mean": float(wanted.mean())}
        scalars["value/explained_variance"] = explained_variance(value, wanted)
        return Signal(PpoSignal(advantage, target), scalars=scalars)

    def loss(self, batch: MicroBatch, iteration: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Surrogate, value loss and entropy bonus; while the critic warms up, no graph is built through the policy."""
        train, actor = self.cfg.train, "actor" in self.trains(iteration)
        with torch.set_grad_enabled(actor and torch.is_grad_enabled()):
            log_ratio, new = self.evaluate(batch)
        value = self.critic(self._seen(new.features), batch.trace.privileged)
        scalars = clipped_surrogate(log_ratio, batch.signal.advantage, train, log_prob_divisor=self.log_prob_divisor)
        scalars["value"] = value_loss(value, batch.trace.value, batch.signal.target, train.clip_value)
        scalars["entropy"] = new.entropy.mean()
        total = train.vf_coef * scalars["value"]
        if actor:
            total = total + scalars["policy"] - train.ent_coef * scalars["entropy"]
        return total, scalars

    def _seen(self, features: Tensor) -> Tensor:
        return features.mean(1) if self.cfg.critic.value_at == "all" else features[:, 0]
