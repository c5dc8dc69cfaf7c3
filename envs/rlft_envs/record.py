"""Runs one demonstration attempt and records it."""

import importlib.metadata
import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlft.types import AttemptRecord, DemoAttempt
from rlft_envs.errors import EnvSetupError, PlanError
from rlft_envs.single import SingleEnv

log = logging.getLogger(__name__)

SUCCESS = "success"
SIMULATOR_ERROR = "simulator_error"
FAILURES = ("no_plan", "ik", "not_grasped", "dropped", "executed_not_solved", "too_slow", SIMULATOR_ERROR)


class Expert(Protocol):
    """Solves one episode; made right after the reset."""

    @property
    def frozen_action_dims(self) -> tuple[int, ...]:
        """Action dimensions that this task never changes (a gripper that stays closed)."""

    @property
    def noisy_dims(self) -> tuple[int, ...]:
        """Action dimensions that may be disturbed on purpose at the step that :meth:`act` last gave."""

    @property
    def success_counts(self) -> bool:
        """Whether a success after the action that :meth:`act` last gave ends the demonstration."""

    def act(self) -> np.ndarray | None:
        """The action for the current state, float32 ``[d]``; None where the plan is over."""

    def hold(self) -> np.ndarray:
        """An action that keeps the robot as it is, float32 ``[d]``."""


@dataclass(frozen=True)
class RecordSettings:
    """How attempts are recorded."""

    # steps recorded after the first success that the expert may end with; the task must still be solved after them
    hold_steps: int = 2
    # std of noise on executed, not recorded, actions until the first success, controller units
    action_noise: float = 0.0
    max_steps: int = 400  # a plan that takes longer is given up
    keep_failures: bool = False  # an attempt that does not succeed is kept like one that does


@dataclass
class DemoRecording:
    """What came of an attempt."""

    attempt: DemoAttempt  # what was tried
    outcome: str  # `success`, or one of `FAILURES`
    message: str = ""  # why it failed
    success_step: int | None = None  # steps until the first success, or None
    seconds: float = 0.0  # wall time
    # camera name -> one uint8 `[height, width, 3]` per recorded step
    images: dict[str, list[np.ndarray]] = field(default_factory=dict)
    # one float32 `[S]` per recorded step, physical units: what was seen before the action
    states: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)  # one float32 `[d]` per recorded step, controller units
    instruction: str = ""  # the episode's language instruction

    def result(self) -> AttemptRecord:
        """The outcome, without the episode."""
        told = self.outcome, len(self.actions), self.success_step, self.seconds, self.message
        return AttemptRecord(self.attempt.number, self.attempt.seed, *told)

    def save(self, path: Path) -> None:
        """Write the episode as an .npz file, whole or not at all; :meth:`rlft.data.episode.Episode.load` reads it."""
        temporary, steps = path.with_suffix(".tmp"), len(self.actions)
        arrays: dict[str, Any] = {f"image:{name}": np.stack(frames[:steps]) for name, frames in self.images.items()}
        arrays |= {"state": np.stack(self.states[:steps]), "action": np.stack(self.actions)}
        with temporary.open("wb") as file:
            np.savez(file, task=np.array(self.instruction), **arrays)
        os.replace(temporary, path)


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Package name -> version, of those that are installed."""
    found = {}
    for name in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def record(
    env: SingleEnv, make_expert: Callable[[SingleEnv], Expert], attempt: DemoAttempt, settings: RecordSettings
) -> DemoRecording:
    """Reset the environment by the attempt's seed and let the expert solve it.

    Every failure is classified and returned; EnvSetupError alone, which no other seed would change, is raised.
    """
    out, started = DemoRecording(attempt, "executed_not_solved"), time.perf_counter()
    try:
        env.reset(attempt.seed)
        out.instruction = env.instruction
        _run(env, make_expert(env), out, settings)
    except PlanError as error:
        out.outcome, out.message = error.kind, str(error)
    except EnvSetupError:
        raise
    except Exception as error:
        log.exception("attempt %d, seed %d: the simulator failed", attempt.number, attempt.seed)
        out.outcome, out.message = SIMULATOR_ERROR, f"{type(error).__name__}: {error}"
    out.seconds = time.perf_counter() - started
    return out


def _run(env: SingleEnv, expert: Expert, out: DemoRecording, settings: RecordSettings) -> None:
    rng = np.random.default_rng(out.attempt.noise_seed)
    low, high = (np.asarray(x, dtype=np.float32) for x in (env.spec.action_low, env.spec.action_high))
    held = 0
    for _ in range(settings.max_steps):
        seen = env.observe()
        action = expert.act() if out.success_step is None else expert.hold()
        if action is None:
            out.message = f"the plan was over after {len(out.actions)} steps without success"
            return
        if not (np.isfinite(action).all() and seen.is_finite()):
            raise FloatingPointError(f"step {len(out.actions)}: the action or the observed state is not finite")
        for name, image in seen.images.items():
            out.images.setdefault(name, []).append(np.array(image))
        out.states.append(np.array(seen.state, dtype=np.float32))
        out.actions.append(action)
        executed, noisy = action.copy(), list(expert.noisy_dims)
        if settings.action_noise > 0.0 and out.success_step is None and noisy:
            executed[noisy] += settings.action_noise * rng.standard_normal(len(noisy), dtype=np.float32)
            executed = np.clip(executed, low, high)
        success = env.step(executed).success
        held += out.success_step is not None
        if out.success_step is None and success and expert.success_counts:
            out.success_step = len(out.actions)
        if out.success_step is not None and held >= settings.hold_steps:
            out.outcome = SUCCESS if success else "executed_not_solved"
            out.message = "" if success else f"solved at step {out.success_step}, but not {held} steps later"
            return
    out.outcome, out.message = "too_slow", f"not solved within {settings.max_steps} steps"
