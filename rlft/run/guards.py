"""What is checked of a run from outside the update: can it learn, is it well, has it fallen."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

from rlft.config.learning import GuardConfig
from rlft.errors import DivergedError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probe:
    """The same episodes with and without exploration noise, before the first update."""

    episodes: int  # how many
    noisy_success: float  # rate of the sampler that the rollouts explore with
    clean_success: float  # rate of the deterministic policy


def check_probe(probe: Probe, guard: GuardConfig) -> None:
    """Refuse to train a policy that exploration leaves nothing of: what it never shows cannot be reinforced.

    Raises:
        DivergedError: success with noise is below ``guard.min_noisy_success``.
    """
    noisy, clean = probe.noisy_success, probe.clean_success
    found = f"{noisy:.1%} of {probe.episodes} episodes succeed with exploration noise, {clean:.1%} without"
    if noisy >= guard.min_noisy_success:
        log.info("before the first update %s", found)
        return
    cause = (
        "the noise is too much for it: lower exploration.std_min and std_max (flow_noise) or exploration.noise_level"
        if clean >= guard.min_noisy_success
        else "it hardly succeeds without noise either: check model.path, the statistics and the task, or do more SFT"
    )
    raise DivergedError(
        f"{found}; guard.min_noisy_success = {guard.min_noisy_success:g} refuses to train this policy. {cause}. Where "
        "the reward alone can lead it, set guard.min_noisy_success=0"
    )


MEANINGS = {  # scalar of an iteration -> the setting of its limit, and what it means beyond
    "update/clip_fraction": (
        "warn_clip_fraction",
        "steps are too large or too many; lower train.actor_optimizer.lr, train.update_epochs or train.target_kl, or "
        "raise train.batch_size",
    ),
    "rollout/clipped_actions": (
        "warn_clipped_actions",
        "the simulator clips what the policy sends; the statistics do not fit the controller, or the exploration noise "
        "is too wide",
    ),
}


class HealthWarnings:
    """Says what an iteration's numbers mean where they leave what is healthy; once, until they are healthy again."""

    def __init__(self, guard: GuardConfig) -> None:
        self._limits: dict[str, float | None] = vars(guard)
        self._said: set[str] = set()

    def look(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Take in the numbers of an iteration."""
        for name, (setting, meaning) in MEANINGS.items():
            limit, value = self._limits[setting], scalars.get(name, math.nan)  # not every objective has ratios
            if limit is None or not value > limit:
                self._said.discard(name)
            elif name not in self._said:
                self._said.add(name)
                found = f"{name} = {value:.2f}, above guard.{setting} = {limit:g}"
                log.warning("iteration %d: %s: %s", iteration, found, meaning)


@dataclass
class BestEvaluation:
    """The best evaluation of a run so far."""

    success: float = -1.0  # its rate; -1 before the first
    ci_low: float = 0.0  # lower end of its 95 % interval
    iteration: int = -1  # when it was; 0 is the policy that the run began with

    def beaten_by(self, success: float, ci95: tuple[float, float], iteration: int) -> bool:
        """Take in an evaluation; whether it is the best so far."""
        if not success > self.success:
            return False
        self.success, self.ci_low, self.iteration = success, ci95[0], iteration
        return True

    def check_drop(self, success: float, ci95: tuple[float, float], guard: GuardConfig) -> None:
        """Stop a run whose evaluation has fallen.

        Raises:
            DivergedError: it is ``guard.max_success_drop`` below the best, and that is more than chance: the
                intervals are apart.
        """
        limit = math.inf if guard.max_success_drop is None else guard.max_success_drop
        if self.success - success < limit or ci95[1] >= self.ci_low:
            return
        raise DivergedError(
            f"evaluation has fallen from {self.success:.1%} at iteration {self.iteration} to {success:.1%} (95 % "
            f"intervals apart), more than guard.max_success_drop = {guard.max_success_drop:g}. The checkpoint `best` "
            "holds the best policy of this run (at iteration 0: model.path is); continue from there with a lower "
            "train.actor_optimizer.lr or train.target_kl, or set guard.max_success_drop=null"
        )
