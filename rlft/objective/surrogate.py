"""The clipped surrogate over denoising chains: what PPO and GRPO share, whatever their advantages are."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rlft.config.learning import TrainConfig
from rlft.config.schema import RunConfig
from rlft.errors import DivergedError
from rlft.objective.base import Objective, Sampled
from rlft.placement import to_host
from rlft.policy.actor import Actor, ChainEvaluation, Draws
from rlft.policy.base import Prefix
from rlft.policy.denoise import log_prob_terms
from rlft.rollout.buffer import MicroBatch, Rollout
from rlft.rows import TensorRows

log = logging.getLogger(__name__)

FIRST_RATIO_LIMIT, FIRST_RATIO_LIMIT_LOW = 1e-2, 5e-2  # joint nats, in float32 and in lower precision
NOTICEABLE = 0.1  # of the clip range: a difference between rollout and update that is worth a warning


@dataclass
class Advantage(TensorRows):
    """A signal: float32 ``[n]``."""

    advantage: Tensor


def clipped_surrogate(
    log_ratio: Tensor, advantage: Tensor, cfg: TrainConfig, *, log_prob_divisor: float = 1.0
) -> dict[str, Tensor]:
    """Clipped surrogate of one minibatch (Schulman et al., arXiv 1707.06347); ``policy`` is differentiable.

    Args:
        log_ratio: float32 ``[n]``, new minus old joint log-probability of the executed chunk, nats.
        advantage: float32 ``[n]``.
        cfg: clip ranges.
        log_prob_divisor: 1 for the joint ratio; the number of densities for the averaged (parity) mode, in which the
            clip range bounds the geometric-mean ratio. The KL is always reported in joint nats.
    """
    ratio = (log_ratio / log_prob_divisor).clamp(-cfg.clip_log_ratio, cfg.clip_log_ratio).exp()
    clipped = ratio.clamp(1.0 - cfg.clip_ratio, 1.0 + cfg.clip_ratio)
    policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
    with torch.no_grad():
        # Schulman's k3 estimator of KL(old || new): unbiased and never negative. Joint nats in both modes.
        joint = log_ratio.clamp(-cfg.clip_log_ratio, cfg.clip_log_ratio)
        kl = (joint.exp() - 1.0 - joint).mean()
        clip_fraction = ((ratio - 1.0).abs() > cfg.clip_ratio).float().mean()
    return {"policy": policy_loss, "kl": kl, "clip_fraction": clip_fraction, "max_log_ratio": log_ratio.abs().max()}


class ClippedSurrogate(Objective):
    """The actor's part of PPO and its kin; a subclass says what the advantages are (:meth:`signal`, and more)."""

    scalars: tuple[str, ...] = ("policy", "entropy", "kl", "clip_fraction", "max_log_ratio")

    def __init__(self, actor: Actor, cfg: RunConfig, privileged_dim: int = 0) -> None:
        super().__init__(actor, cfg, privileged_dim)
        # Rounded to float32, rollout and update agree to rounding; in lower precision, batches of other shapes do not.
        self.exact = cfg.model.dtype == "float32" and cfg.model.matmul == "highest"
        wanted = cfg.train.recompute_old_logprob
        self.recompute = not self.exact if wanted is None else wanted
        terms = log_prob_terms(actor.schedule, actor.act_steps, len(actor.explored_dims))
        self.log_prob_divisor = float(terms) if cfg.exploration.logprob == "mean" else 1.0
        self._warned = False

    def sample(self, prefix: Prefix, draws: Draws, privileged: Tensor | None) -> Sampled:
        """See :meth:`Objective.sample`."""
        drawn = self.actor.sample(prefix, draws.noise, draws.stochastic_step)
        return Sampled(drawn.actions, drawn.trace, drawn.mean_std)

    def evaluate(self, batch: MicroBatch) -> tuple[Tensor, ChainEvaluation]:
        """The log-ratio ``[n]`` of stored chains, joint nats, and their evaluation under the weights as they are."""
        new = self.actor.evaluate(self.prefix_of(batch), batch.trace.chain, batch.trace.stochastic_step)
        return new.log_prob.joint(batch.n_executed) - batch.trace.joint(batch.n_executed), new

    def loss(self, batch: MicroBatch, iteration: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Surrogate and entropy bonus; wants a signal with an ``advantage``."""
        log_ratio, new = self.evaluate(batch)
        train, divisor = self.cfg.train, self.log_prob_divisor
        scalars = clipped_surrogate(log_ratio, batch.signal.advantage, train, log_prob_divisor=divisor)
        scalars["entropy"] = new.entropy.mean()
        return scalars["policy"] - train.ent_coef * scalars["entropy"], scalars

    def begin_update(self, rollout: Rollout) -> dict[str, float]:
        """Replace the rollout's log-probabilities by the update path's, where that is asked for."""
        difference = self.recompute_old(rollout) if self.recompute else math.nan
        unknown = {"first_max_log_ratio": math.nan, "kl_last": math.nan, "stopped_by_kl": 0.0}
        return {"rollout_max_log_ratio": difference, **unknown}

    @torch.no_grad()
    def recompute_old(self, rollout: Rollout) -> float:
        """Replace the rollout's log-probabilities by those of the update path (same batching, same kernels).

        Gives the largest difference between the two, joint nats; NaN without valid rows.
        """
        largest: list[Tensor] = []  # on the device, read once
        for rows in rollout.row_blocks(self.cfg.train.micro_batch_size or self.cfg.train.batch_size):
            log_ratio, new = self.evaluate(rollout.rows(rows))
            largest.append(log_ratio.abs().amax())
            rollout.replace(rows, **vars(new.log_prob))
        return float(to_host(torch.stack(largest).max())) if largest else math.nan

    def examine(self, iteration: int, scalars: Mapping[str, float], notes: dict[str, float]) -> bool:
        """Check the ratio before the first step, and the KL before every one.

        Raises:
            DivergedError: rollout and update do not compute the same policy.
        """
        if math.isnan(notes["first_max_log_ratio"]):
            notes["first_max_log_ratio"] = scalars["max_log_ratio"]
            self._check_first_ratio(scalars["max_log_ratio"], notes["rollout_max_log_ratio"])
        notes["kl_last"], limit = scalars["kl"], self.cfg.train.target_kl if self.cfg.train.use_early_stop else None
        stop = limit is not None and scalars["kl"] > limit and "actor" in self.trains(iteration)
        notes["stopped_by_kl"] = float(stop)
        return stop

    def _check_first_ratio(self, measured: float, rollout_difference: float) -> None:
        """Before the first step new and old policy are the same: what differs is an error, of rounding at best."""
        chosen = self.cfg.guard.max_first_log_ratio
        limit = chosen if chosen is not None else FIRST_RATIO_LIMIT if self.exact else FIRST_RATIO_LIMIT_LOW
        # In low precision without recomputation the difference is what the user chose; he is warned.
        if measured > limit and (self.exact or self.recompute or chosen is not None):
            was = "" if math.isnan(rollout_difference) else f" (and the rollout's by {rollout_difference:.3g})"
            raise DivergedError(
                f"before the first step, log-probabilities differ from the stored ones by {measured:.3g} joint "
                f"nats{was}; at most {limit:g} is rounding (guard.max_first_log_ratio). Rollout and update do not "
                "compute the same policy: a ratio of 1 is what the surrogate stands on"
            )
        clip = self.cfg.train.clip_ratio * self.log_prob_divisor
        first, after = (measured, math.nan) if math.isnan(rollout_difference) else (rollout_difference, measured)
        if (first > NOTICEABLE * clip or after > NOTICEABLE * clip) and not self._warned:
            self._warned = True  # it is rounding, and as large in every iteration
            log.warning(
                "rollout and update differ by %.3g joint nats before the first step, and %.3g after recomputation; the "
                "clip range is %.3g (train.recompute_old_logprob, model.dtype)",
                *(first, after, clip),
            )
