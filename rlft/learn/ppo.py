"""PPO: the loss as a pure function, and the updater that applies it to a rollout."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from rlft.config.learning import GuardConfig, TrainConfig
from rlft.errors import DivergedError
from rlft.learn.optimizers import make_adamw
from rlft.placement import prefetched, to_host
from rlft.policy.actor_critic import ActorCritic
from rlft.policy.base import Prefix
from rlft.policy.denoise import log_prob_terms
from rlft.rollout.buffer import Minibatch, Part, RolloutBuffer

log = logging.getLogger(__name__)

SCALARS = ("total", "policy", "value", "entropy", "kl", "clip_fraction", "max_log_ratio")  # means, and one maximum
NORMS = ("actor_grad_norm", "critic_grad_norm")
FIRST_RATIO_LIMIT, FIRST_RATIO_LIMIT_LOW = 1e-2, 5e-2  # joint nats, in float32 and in lower precision
NOTICEABLE = 0.1  # of the clip range: a difference between rollout and update that is worth a warning


@dataclass(frozen=True)
class PpoLosses:
    """Scalars of one minibatch; ``total`` is differentiable, the others are detached."""

    total: torch.Tensor
    policy: torch.Tensor
    value: torch.Tensor
    entropy: torch.Tensor
    kl: torch.Tensor
    clip_fraction: torch.Tensor
    max_log_ratio: torch.Tensor


def ppo_losses(
    log_ratio: torch.Tensor,
    advantage: torch.Tensor,
    value: torch.Tensor,
    old_value: torch.Tensor,
    target: torch.Tensor,
    entropy: torch.Tensor,
    cfg: TrainConfig,
    *,
    log_prob_divisor: float = 1.0,
    actor: bool = True,
) -> PpoLosses:
    """Clipped surrogate (Schulman et al., arXiv 1707.06347), value and entropy losses of one minibatch.

    Args:
        log_ratio: float32 ``[n]``, new minus old joint log-probability of the executed chunk, nats.
        advantage: float32 ``[n]``, normalised over the whole rollout.
        value: float32 ``[n]``, the critic now.
        old_value: float32 ``[n]``, the critic at the rollout.
        target: float32 ``[n]``, advantage (not normalised) plus old value.
        entropy: float32 ``[n]``, nats per drawn number.
        cfg: clip ranges and weights.
        log_prob_divisor: 1 for the joint ratio; the number of densities for the averaged (parity) mode, in which the
            clip range bounds the geometric-mean ratio. The KL is always reported in joint nats.
        actor: False while the critic warms up: only the value loss counts.
    """
    scaled = (log_ratio / log_prob_divisor).clamp(-cfg.clip_log_ratio, cfg.clip_log_ratio)
    ratio = scaled.exp()
    clipped = ratio.clamp(1.0 - cfg.clip_ratio, 1.0 + cfg.clip_ratio)
    policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
    value_loss = 0.5 * _value_errors(value, old_value, target, cfg.clip_value).mean()
    entropy_mean = entropy.mean()
    total = cfg.vf_coef * value_loss
    if actor:
        total = total + policy_loss - cfg.ent_coef * entropy_mean
    with torch.no_grad():
        # Schulman's k3 estimator of KL(old || new): unbiased and never negative. Joint nats in both modes.
        joint = log_ratio.clamp(-cfg.clip_log_ratio, cfg.clip_log_ratio)
        kl = (joint.exp() - 1.0 - joint).mean()
        clip_fraction = ((ratio - 1.0).abs() > cfg.clip_ratio).float().mean()
    return PpoLosses(
        total=total,
        policy=policy_loss.detach(),
        value=value_loss.detach(),
        entropy=entropy_mean.detach(),
        kl=kl,
        clip_fraction=clip_fraction,
        max_log_ratio=log_ratio.detach().abs().max(),
    )


def _value_errors(
    value: torch.Tensor, old_value: torch.Tensor, target: torch.Tensor, clip: float | None
) -> torch.Tensor:
    error = (value - target).square()
    if clip is None:
        return error
    near = old_value + (value - old_value).clamp(-clip, clip)
    return torch.maximum(error, (near - target).square())


class PpoUpdater:
    """Applies PPO epochs to a finished rollout.

    Args:
        model: policy, noise head and critic.
        cfg: PPO settings.
        log_prob: ``sum`` or ``mean`` (see ExplorationConfig.logprob).
        guard: when to warn, and when to stop.
        exact: products are rounded to float32: rollout and update then agree to rounding. In lower precision batches of
            different shapes do not, and ``recompute_old_logprob=null`` recomputes.
    """

    def __init__(
        self,
        model: ActorCritic,
        cfg: TrainConfig,
        log_prob: str,
        guard: GuardConfig | None = None,
        *,
        exact: bool = True,
    ) -> None:
        self.model, self.cfg, self.guard, self.exact = model, cfg, guard or GuardConfig(), exact
        self.recompute = not exact if cfg.recompute_old_logprob is None else cfg.recompute_old_logprob
        self.actor_parameters = [
            *model.policy.actor_parameters(),
            *(p for p in model.noise.parameters() if p.requires_grad),
        ]
        self.critic_parameters = list(model.critic.parameters())
        self.actor_optimizer = make_adamw(self.actor_parameters, cfg.actor_optimizer)
        self.critic_optimizer = make_adamw(self.critic_parameters, cfg.critic_optimizer)
        terms = log_prob_terms(model.schedule, model.act_steps, len(model.explored_dims))
        self.log_prob_divisor = float(terms) if log_prob == "mean" else 1.0
        self.skipped_in_a_row = 0
        self.idle_in_a_row = 0
        self._told = False

    def update(self, buffer: RolloutBuffer, iteration: int, generator: torch.Generator) -> dict[str, float]:
        """Run the epochs; stop early where the KL passes its target.

        Args:
            buffer: a rollout with advantages.
            iteration: counts from 0; the critic warms up during the first n_critic_warmup_itr.
            generator: shuffles the minibatches of every epoch anew.

        Returns:
            means of the losses over the applied minibatches, and what happened (see docs/metrics.md). NaN where no
            minibatch was applied.

        Raises:
            DivergedError: rollout and update differ before the first step; too many non-finite updates, or iterations
                without any update, in a row.
        """
        actor = iteration >= self.cfg.n_critic_warmup_itr
        self._set_learning_rates(iteration)
        rollout_difference = self.recompute_old(buffer) if self.recompute else math.nan
        applied: list[dict[str, float]] = []
        first, last_kl, stopped, skipped, samples = math.nan, math.nan, False, 0, 0.0
        for metrics in self._minibatches(buffer, generator, actor=actor):
            samples += metrics.pop("rows")
            if math.isnan(first):
                first = metrics["max_log_ratio"]
                self._check_first_ratio(first, rollout_difference)
            last_kl = metrics["kl"]
            if actor and self._kl_exceeded(last_kl):
                stopped = True
                break
            if self._apply(metrics, actor=actor):
                applied.append(metrics)
            else:
                skipped += 1
        self._clear_gradients()
        self._count_idle(bool(applied))
        return {
            **_summary(applied),
            "first_max_log_ratio": first,
            "rollout_max_log_ratio": rollout_difference,
            "kl_last": last_kl,
            "updates": float(len(applied)),
            "updates_skipped": float(skipped),
            "samples": samples,
            "stopped_by_kl": float(stopped),
            "actor_lr": self.actor_optimizer.param_groups[0]["lr"],
            "critic_lr": self.critic_optimizer.param_groups[0]["lr"],
        }

    def _minibatches(
        self, buffer: RolloutBuffer, generator: torch.Generator, *, actor: bool
    ) -> Iterator[dict[str, float]]:
        for _ in range(self.cfg.update_epochs):
            yield from self.gradients(buffer, generator, actor=actor)

    @torch.no_grad()
    def recompute_old(self, buffer: RolloutBuffer) -> float:
        """Replace the rollout's log-probabilities by those of the update path (same batching, same kernels).

        Returns:
            the largest difference between the two, joint nats; NaN without valid rows.
        """
        largest: list[torch.Tensor] = []  # on the device, read once
        for rows in buffer.row_blocks(self.cfg.micro_batch_size or self.cfg.batch_size):
            batch = buffer.gather(rows)
            evaluation = self.model.evaluate(self.prefix_of(batch), batch.chain, batch.drawn_step, batch.privileged)
            log_prob = evaluation.log_prob.joint(batch.n_executed)
            largest.append((log_prob - batch.log_prob).abs().amax())
            buffer.set_log_prob(rows, log_prob)
        return float(to_host(torch.stack(largest).max())) if largest else math.nan

    def _check_first_ratio(self, measured: float, rollout_difference: float) -> None:
        """Before the first step new and old policy are the same: what differs is an error, of rounding at best.

        Raises:
            DivergedError: it is more than rounding.
        """
        limit = self.guard.max_first_log_ratio
        if limit is None:
            limit = FIRST_RATIO_LIMIT if self.exact else FIRST_RATIO_LIMIT_LOW
        # In low precision without recomputation the difference is what the user chose; he is warned.
        if measured > limit and (self.exact or self.recompute or self.guard.max_first_log_ratio is not None):
            was = "" if math.isnan(rollout_difference) else f" (and the rollout's by {rollout_difference:.3g})"
            raise DivergedError(
                f"before the first step, log-probabilities differ from the stored ones by {measured:.3g} joint "
                f"nats{was}; at most {limit:g} is rounding (guard.max_first_log_ratio). Rollout and update do not "
                "compute the same policy: a ratio of 1 is what PPO stands on"
            )
        noticeable = NOTICEABLE * self.cfg.clip_ratio * self.log_prob_divisor
        if max(measured, 0.0 if math.isnan(rollout_difference) else rollout_difference) > noticeable and not self._told:
            self._told = True  # it is rounding, and as large in every iteration
            log.warning(
                "rollout and update differ by %.3g joint nats before the first step, and %.3g after recomputation; the "
                "clip range is %.3g (train.recompute_old_logprob, model.dtype)",
                *((measured, math.nan) if math.isnan(rollout_difference) else (rollout_difference, measured)),
                self.cfg.clip_ratio * self.log_prob_divisor,
            )

    def _count_idle(self, applied: bool) -> None:
        self.idle_in_a_row = 0 if applied else self.idle_in_a_row + 1
        if self.idle_in_a_row >= self.guard.max_idle_iterations:
            raise DivergedError(
                f"{self.idle_in_a_row} iterations in a row applied no update (guard.max_idle_iterations): every "
                "decision was invalid, every loss not finite, or the KL passed train.target_kl at once; the log says "
                "which"
            )

    def prefix_of(self, batch: Minibatch) -> Prefix:
        """The stored prefix, or a fresh one from the stored model inputs."""
        if batch.prefix is not None:
            return batch.prefix
        if batch.inputs is None:
            raise ValueError("the buffer holds neither prefixes nor model inputs")
        return self.model.policy.encode(batch.inputs)

    def gradients(
        self, buffer: RolloutBuffer, generator: torch.Generator, *, actor: bool
    ) -> Iterator[dict[str, float]]:
        """One epoch, minibatch by minibatch: the gradients of its mean loss are in place, its scalars are given."""
        epoch = buffer.epoch(self.cfg.batch_size, self.cfg.micro_batch_size, generator)
        totals: list[torch.Tensor] = []
        rows = 0
        for part in prefetched(epoch, buffer.policy_device, tensors=lambda part: part.batch.tensors()):
            if not totals:
                self._clear_gradients()
            scalars = self._accumulate(part, actor=actor)
            totals.append(torch.cat([part.weight * scalars[:-1], scalars[-1:]]))
            rows += len(part.batch)
            if part.completes:
                every = torch.stack(totals)
                means = torch.cat([every[:, :-1].sum(0), every[:, -1:].amax(0)]).tolist()
                yield {**dict(zip(SCALARS, means)), "rows": float(rows)}
                totals, rows = [], 0

    def _accumulate(self, part: Part, *, actor: bool) -> torch.Tensor:
        """Add a part's share of the minibatch's gradients; exact, because it is weighted by rows.

        Returns:
            the part's own :data:`SCALARS`, left on its device, so that no part waits for its numbers.
        """
        batch = part.batch
        with torch.set_grad_enabled(True):
            prefix = self.prefix_of(batch)
            evaluation = self.model.evaluate(prefix, batch.chain, batch.drawn_step, batch.privileged, actor=actor)
            losses = ppo_losses(
                evaluation.log_prob.joint(batch.n_executed) - batch.log_prob,
                batch.advantage,
                evaluation.value,
                batch.value,
                batch.target,
                evaluation.entropy,
                self.cfg,
                log_prob_divisor=self.log_prob_divisor,
                actor=actor,
            )
            (losses.total * part.weight).backward()
        self.actor_optimizer.collect()
        self.critic_optimizer.collect()
        return torch.stack([getattr(losses, name).detach() for name in SCALARS])

    def _clear_gradients(self) -> None:
        self.actor_optimizer.zero_grad(set_to_none=True)
        self.critic_optimizer.zero_grad(set_to_none=True)

    def _apply(self, metrics: dict[str, float], *, actor: bool) -> bool:
        """Clip and step, unless something is not finite: then nothing changes, and it is counted."""
        limit = self.cfg.max_grad_norm if self.cfg.max_grad_norm is not None else math.inf
        metrics["critic_grad_norm"] = float(torch.nn.utils.clip_grad_norm_(self.critic_optimizer.masters, limit))
        metrics["actor_grad_norm"] = (
            float(torch.nn.utils.clip_grad_norm_(self.actor_optimizer.masters, limit)) if actor else 0.0
        )
        finite = all(math.isfinite(metrics[k]) for k in ("total", "critic_grad_norm", "actor_grad_norm"))
        if not finite:
            self.skipped_in_a_row += 1
            log.warning("update skipped: %s", {k: v for k, v in metrics.items() if not math.isfinite(v)})
            if self.skipped_in_a_row >= self.cfg.max_skipped_updates:
                raise DivergedError(
                    f"{self.skipped_in_a_row} updates in a row were not finite (train.max_skipped_updates="
                    f"{self.cfg.max_skipped_updates}); lower train.actor_optimizer.lr or resume an earlier checkpoint"
                )
            return False
        self.skipped_in_a_row = 0
        self.critic_optimizer.step()
        if actor:
            self.actor_optimizer.step()
        return True

    def _kl_exceeded(self, kl: float) -> bool:
        return self.cfg.use_early_stop and self.cfg.target_kl is not None and kl > self.cfg.target_kl

    def _set_learning_rates(self, iteration: int) -> None:
        progress = iteration / max(1, self.cfg.n_train_itr)
        factor = {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress))}
        scale = factor[self.cfg.lr_schedule]
        for optimizer, settings in (
            (self.actor_optimizer, self.cfg.actor_optimizer),
            (self.critic_optimizer, self.cfg.critic_optimizer),
        ):
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * scale

    def state_dict(self) -> dict[str, object]:
        """Both optimisers' states."""
        return {"actor": self.actor_optimizer.state_dict(), "critic": self.critic_optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, dict]) -> None:
        """Restore both optimisers."""
        self.actor_optimizer.load_state_dict(state["actor"])
        self.critic_optimizer.load_state_dict(state["critic"])


def _summary(applied: list[dict[str, float]]) -> dict[str, float]:
    """Means over the applied minibatches, and the largest of the maxima; NaN where there are none."""
    if not applied:
        return dict.fromkeys((*SCALARS, *NORMS), math.nan)
    means = {name: sum(one[name] for one in applied) / len(applied) for name in (*SCALARS, *NORMS)}
    return means | {"max_log_ratio": max(one["max_log_ratio"] for one in applied)}
