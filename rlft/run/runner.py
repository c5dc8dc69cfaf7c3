"""Fine-tuning by reinforcement, from the first rollout to the last checkpoint. The loop is the table of contents."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any

from rlft.config.schema import RunConfig
from rlft.errors import DivergedError, RlftError
from rlft.evaluate.result import EvalResult
from rlft.learn.updater import Updater
from rlft.objective.base import Objective
from rlft.progress import Progress
from rlft.rollout.buffer import Rollout
from rlft.rollout.sampler import RolloutSampler
from rlft.rollout.store import StoreChoice
from rlft.run.guards import BestEvaluation, HealthWarnings, Probe, check_probe
from rlft.run.tracking import Tracker
from rlft.seeding import generator_for
from rlft.statistics import wilson_interval

log = logging.getLogger(__name__)


@dataclass
class RunState:
    """What has happened so far; saved with every checkpoint."""

    iteration: int = 0  # iterations completed
    env_steps: int = 0  # environment steps executed
    update_samples: int = 0  # chunk decisions that went through an update, epochs counted
    rollout_seconds: float = 0.0  # wall time of rollouts
    update_seconds: float = 0.0  # wall time of updates
    best: BestEvaluation = field(default_factory=BestEvaluation)  # best evaluation so far


@dataclass(eq=False)
class Runner:
    """Runs an objective with injected parts; it owns the order of things and nothing else."""

    cfg: RunConfig
    objective: Objective  # what is optimised; the policy is in it
    sampler: RolloutSampler
    updater: Updater
    _: KW_ONLY
    store: StoreChoice  # what the rollout keeps, and why
    evaluate: Callable[[str], EvalResult]  # evaluates the current policy under a label
    probe: Callable[[int], Probe]  # plays so many episodes with exploration noise and without
    save: Callable[[RunState, bool], None]  # writes a checkpoint of the state; with True it is the best one as well
    tracker: Tracker
    progress: Progress
    state: RunState = field(default_factory=RunState)

    def __post_init__(self) -> None:
        self._health = HealthWarnings(self.cfg.guard)

    def run(self) -> RunState:
        """Train to ``train.n_train_itr`` iterations, from wherever the state stands."""
        self.progress.update(self.state.iteration, self.cfg.train.n_train_itr)
        if self.state.iteration == 0:
            self._look_before_training()
        while self.state.iteration < self.cfg.train.n_train_itr:
            rollout, happened = self._collect()
            verdict = self._judge(rollout)
            losses = self._update(rollout)
            self.state.iteration += 1
            self._log(happened | verdict | losses)
            result = self._evaluate() if self._due(self.cfg.train.val_freq) else None
            self._save(result)
            self._check(result)
        return self.state

    def _look_before_training(self) -> None:
        """Measure what there is to begin with, and refuse what cannot learn."""
        train, guard, rows = self.cfg.train, self.cfg.guard, self.sampler.T * self.sampler.E
        log.info(
            "an iteration is %d decisions and %d optimiser steps (train.update_epochs = %d, train.batch_size = %d)",
            *(rows, -(-rows // train.batch_size) * train.update_epochs, train.update_epochs, train.batch_size),
        )
        if not train.skip_initial_eval:
            result = self._evaluate("sft")
            self.state.best.beaten_by(result.success, result.ci95, 0)
        if guard.probe_episodes and self.cfg.model.path is not None:  # of random weights nobody expects success
            probe = self.probe(guard.probe_episodes)
            self.tracker.log("probe", 0, asdict(probe))
            check_probe(probe, guard)

    def _collect(self) -> tuple[Rollout, dict[str, float]]:
        started = time.perf_counter()
        rollout, stats = self.sampler.collect(self.state.iteration)
        if self.objective.calibrate(rollout):
            self.state.env_steps += stats.env_steps
            rollout, stats = self.sampler.collect(self.state.iteration)
        self.state.rollout_seconds += time.perf_counter() - started
        self.state.env_steps += stats.env_steps
        return rollout, stats.scalars()

    def _judge(self, rollout: Rollout) -> dict[str, float]:
        signal = self.objective.signal(rollout)
        rollout.assign(signal.rows, signal.dropped)
        return {**signal.scalars, "buffer/bytes": float(rollout.nbytes())}

    def _update(self, rollout: Rollout) -> dict[str, float]:
        started = time.perf_counter()
        generator = generator_for(self.cfg.seed, "minibatches", self.state.iteration)
        losses = self.updater.update(rollout, self.state.iteration, generator)
        seconds, samples = time.perf_counter() - started, int(losses["samples"])
        self.state.update_seconds += seconds
        self.state.update_samples += samples
        named = {f"update/{name}": value for name, value in losses.items()}
        return named | {"time/update_seconds": seconds, "throughput/samples_per_s_update": samples / max(seconds, 1e-9)}

    def _log(self, scalars: Mapping[str, float]) -> None:
        self._health.look(self.state.iteration, scalars)
        self.tracker.log("rl", self.state.iteration, {**scalars, "env_steps_total": float(self.state.env_steps)})
        success, episodes = scalars["rollout/success"], int(scalars["rollout/episodes"])
        figures: dict[str, float | tuple[float, float]] = {
            "success": success,
            "ci95": wilson_interval(round(success * episodes), episodes) if episodes else (0.0, 1.0),
            "kl": scalars.get("update/kl", math.nan),
            "steps_per_s": scalars["throughput/env_steps_per_s"],
        }
        self.progress.update(self.state.iteration, self.cfg.train.n_train_itr, **figures)

    @property
    def _last(self) -> bool:
        return self.state.iteration == self.cfg.train.n_train_itr

    def _evaluate(self, label: str | None = None) -> EvalResult:
        result = self.evaluate(label or ("rl" if self._last else f"rl_{self.state.iteration:05d}"))
        self.tracker.log("eval", self.state.iteration, result.scalars())
        return result

    def _save(self, result: EvalResult | None) -> None:
        best = result is not None and self.state.best.beaten_by(result.success, result.ci95, self.state.iteration)
        if best or self._due(self.cfg.train.save_model_freq):
            self.save(self.state, best)

    def _check(self, result: EvalResult | None) -> None:
        """Stop a run that has fallen; at its end there is nothing to stop, and it is only said."""
        if result is None:
            return
        try:
            self.state.best.check_drop(result.success, result.ci95, self.cfg.guard)
        except DivergedError as error:
            if not self._last:
                raise
            log.warning("%s", error)

    def _due(self, every: int) -> bool:
        return self._last or (every > 0 and self.state.iteration % every == 0)

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs beside the policy's weights; all randomness is named by counters."""
        return {
            "run": asdict(self.state),
            "heads": {name: head.state_dict() for name, head in self.objective.heads().items()},
            "optimizers": self.updater.state_dict(),
            "store": vars(self.store).copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; the policy's weights are loaded with the policy.

        Raises:
            RlftError: it is of another objective.
        """
        run = dict(state["run"])
        self.state = RunState(**{**run, "best": BestEvaluation(**run["best"])})
        heads = self.objective.heads()
        if heads.keys() != state["heads"].keys():
            raise RlftError(
                f"train.objective = {self.cfg.train.objective} trains {', '.join(heads)} beside the policy, and the "
                f"checkpoint holds {', '.join(state['heads'])}: it is of another objective. Go on with that one, or "
                "start a new run with model.path=<checkpoint>/pretrained_model"
            )
        for name, head in heads.items():
            head.load_state_dict(state["heads"][name])
        self.updater.load_state_dict(state["optimizers"])
        if self.cfg.buffer.store == "auto":  # less or more memory may be free now; the numbers must go on as they were
            self.store = StoreChoice(**state["store"])
            self.sampler.store_prefix = self.store.prefix
