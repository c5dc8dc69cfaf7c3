"""Normalisation statistics: they travel with the weights, and are checked before they are used.

The map is affine per dimension, ``(x - mean) / std``. Quantile statistics (what some weights expect) fit the same
form with the quantiles' midpoint and half-distance in the two fields: ``2 (x - q01) / (q99 - q01) - 1``.
"""

import dataclasses
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rlft.errors import RlftError
from rlft.types import EnvSpec

if TYPE_CHECKING:
    from rlft.data.dataset import DemoSet

log = logging.getLogger(__name__)

MIN_STD = 1e-4  # times max(1, |mean|): float32 then normalises to within 1e-3, and so does lerobot's std + 1e-8
METHODS = ("mean_std", "quantiles", "bounds")
FIELDS = ("state_mean", "state_std", "action_mean", "action_std")
ORIGIN = ("env_id", "control_mode", "fingerprint")  # what may differ where a user allows it
DEMO_FACTS = (*ORIGIN, "cameras", "state_terms")  # what a dataset knows of itself


class StatsError(RlftError, ValueError):
    """Statistics that are broken, or belong to another environment or dataset."""

    exit_code = 2


@dataclass(frozen=True)
class NormStats:
    """Mean and std over the real dimensions, in physical units, and where they come from."""

    state_mean: tuple[float, ...]  # length S
    state_std: tuple[float, ...]  # length S, positive
    action_mean: tuple[float, ...]  # length d
    action_std: tuple[float, ...]  # length d, positive
    env_id: str  # the environment that the data was recorded in
    control_mode: str  # the controller that the actions are meant for
    cameras: tuple[str, ...] = ()  # camera names, in the order that the policy reads them
    state_terms: tuple[str, ...] = ()  # what the state vector is made of
    fingerprint: str = "none"  # hash of the dataset, or `none`
    method: str = "mean_std"  # or midpoint and half-distance: of the 1 % and 99 % `quantiles`, of the action `bounds`
    # action dimensions that never change in the data: learnt and executed, not explored, for noise could only do harm
    frozen_action_dims: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse statistics that would poison every number after them."""
        for name in (*FIELDS, "cameras", "state_terms", "frozen_action_dims"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.method not in METHODS:
            raise StatsError(f"method={self.method!r}: must be one of {', '.join(METHODS)}.")
        for name in FIELDS:
            values = getattr(self, name)
            if bad := [index for index, value in enumerate(values) if not math.isfinite(value)]:
                raise StatsError(f"{name} is not finite in dimensions {bad}: {values}. Recompute the statistics.")
        for part in ("state", "action"):
            mean, std = getattr(self, f"{part}_mean"), getattr(self, f"{part}_std")
            if len(mean) != len(std):
                raise StatsError(f"{part}_mean has {len(mean)} numbers and {part}_std {len(std)}; wanted as many.")
            if flat := [i for i, (m, s) in enumerate(zip(mean, std)) if s < MIN_STD * max(1.0, abs(m))]:
                raise StatsError(self._too_narrow(part, flat))

    @classmethod
    def from_arrays(
        cls,
        state: np.ndarray,
        actions: np.ndarray,
        *,
        method: str = "mean_std",
        frozen_state_dims: Sequence[int] = (),
        frozen_action_dims: Sequence[int] = (),
        **origin: Any,
    ) -> Self:
        """Compute statistics of recorded states ``[frames, S]``, physical units, and actions ``[frames, d]``.

        Dimensions that are constant on purpose (frozen) get a std of 1. ``quantiles`` map 1 % and 99 % to -1 and 1:
        exact over all frames, where those of lerobot's ``stats.json`` are averages of each episode's, read off
        histograms. ``origin``: the fields of the class that say where the data is from.

        Raises:
            StatsError: NaN in the data, or a dimension that is constant without being declared so.
        """
        numbers: dict[str, Any] = {}
        for part, values, constant in (("state", state, frozen_state_dims), ("action", actions, frozen_action_dims)):
            data = np.asarray(values, dtype=np.float64)
            if data.ndim != 2 or len(data) == 0:
                raise StatsError(f"{part} data has shape {data.shape}; wanted [frames, dimensions], not empty.")
            if len(bad := np.argwhere(~np.isfinite(data))):
                raise StatsError(f"{part} data is not finite, first at frame {bad[0, 0]}, dimension {bad[0, 1]}.")
            centre, spread = _centre_and_spread(data, method)
            spread[list(constant)] = 1.0
            numbers |= {f"{part}_mean": centre.tolist(), f"{part}_std": spread.tolist()}
        return cls(**numbers, method=method, frozen_action_dims=tuple(frozen_action_dims), **origin)

    @classmethod
    def from_demos(cls, demos: "DemoSet", *, method: str = "mean_std") -> Self:
        """The statistics of a dataset, with its origin and its declared constant dimensions."""
        declared = {key: getattr(demos.meta, key) for key in (*DEMO_FACTS, "frozen_state_dims", "frozen_action_dims")}
        return cls.from_arrays(demos.state.numpy(), demos.action.numpy(), method=method, **declared)

    @classmethod
    def from_spec(cls, spec: EnvSpec) -> Self:
        """Statistics for an untrained policy that has seen no data: action bounds to [-1, 1], state as it is."""
        low, high = np.asarray((spec.action_low, spec.action_high), np.float64)
        if not np.isfinite((low, high)).all():
            raise StatsError(
                f"{spec.env_id} ({spec.control_mode}) has unbounded actions: {spec.action_low} to {spec.action_high}. "
                "Without bounds there is no statistic to guess; give dataset_stats or a dataset."
            )
        log.warning(
            "NO NORMALISATION STATISTICS: %s gets its action bounds and an identity for the state. This is meant for "
            "untrained policies only; a checkpoint or a dataset brings its own.", spec.env_id,
        )  # fmt: skip
        cameras, same = [camera.name for camera in spec.cameras], ((0.0,) * spec.state_dim, (1.0,) * spec.state_dim)
        centre, spread = ((low + high) / 2).tolist(), ((high - low) / 2).tolist()
        return cls(*same, centre, spread, spec.env_id, spec.control_mode, tuple(cameras), method="bounds")

    def _too_narrow(self, part: str, flat: list[int]) -> str:
        mean, std = getattr(self, f"{part}_mean"), getattr(self, f"{part}_std")
        found = "; ".join(f"mean {mean[i]:g}, std {std[i]:g}" for i in flat)
        rarely = "If it moves in fewer than 1 % of the frames, set dataset.stats_method=mean_std. "
        return (
            f"{part}_std is below {MIN_STD:g} x max(1, |mean|) in dimensions {flat} ({found}): dividing by it would "
            f"amplify the rounding of float32. If such a dimension is constant on purpose, declare it "
            f"(frozen_{part}_dims in the dataset's rlft.json). {rarely if self.method == 'quantiles' else ''}"
            "For a checkpoint from before this limit run train_sft again, or give its statistics as dataset_stats=FILE "
            "with a std of 1 in these dimensions: the policy then reads 0 where it has seen rounding."
        )

    @property
    def state_dim(self) -> int:
        """S."""
        return len(self.state_mean)

    @property
    def act_dim(self) -> int:
        """The robot's action width d."""
        return len(self.action_mean)

    def check(self, spec: EnvSpec, **known: Any) -> None:
        """Compare with the environment that is about to be used; the rest as in :meth:`check_origin`."""
        facts = {name: getattr(spec, name) for name in ("env_id", "control_mode", "state_dim", "act_dim")}
        self.check_origin(**facts, cameras=[camera.name for camera in spec.cameras], **known)

    def check_origin(self, *, allow_mismatch: bool = False, **here: Any) -> None:
        """Compare fields, ``state_dim`` and ``act_dim`` with what is known of an environment or a dataset (not None).

        Another environment or dataset is refused, or logged with ``allow_mismatch``; wrong widths, cameras and, where
        the statistics know theirs, state terms are always refused.

        Raises:
            StatsError: names every field that differs, both values, and the remedy.
        """
        wrong, other = list[str](), list[str]()
        for name, value in here.items():
            mine, theirs = getattr(self, name), tuple(value) if isinstance(value, list) else value
            known = theirs is not None and (mine or name != "state_terms")
            if known and mine != theirs:
                line = f"{name} is {mine!r} in the statistics and {theirs!r} here"
                (other if name in ORIGIN else wrong).append(line)
        if wrong or (other and not allow_mismatch):
            differ, allow = "; ".join(wrong + other), "" if wrong else ", or set allow_stats_mismatch=true"
            remedy = f"Use the statistics that were computed with this data and environment{allow}"
            raise StatsError(f"Normalisation statistics do not fit: {differ}. {remedy}.")
        if other:
            log.warning("Normalisation statistics of another origin are accepted: %s.", "; ".join(other))

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, source: str = "statistics") -> Self:
        """Rebuild from plain data; missing and unknown fields are errors that name ``source``."""
        # What weights of earlier versions have beside them can still be used.
        data = {"frozen_action_dims" if key == "constant_action" else key: value for key, value in data.items()}
        known = {entry.name for entry in dataclasses.fields(cls)}
        missing, unknown = sorted({*FIELDS, "env_id", "control_mode"} - set(data)), sorted(set(data) - known)
        if missing or unknown:
            raise StatsError(f"{source}: missing fields {missing}, unknown fields {unknown}.")
        return cls(**data)

    def save(self, path: str | Path) -> None:
        """Write JSON."""
        Path(path).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read JSON; a StatsError where the file is missing, is no JSON, or its content is wrong."""
        try:
            data = json.loads(Path(path).read_text())
        except (OSError, ValueError) as error:
            raise StatsError(f"dataset_stats={path}: cannot be read as JSON ({error}).") from error
        if not isinstance(data, dict):
            raise StatsError(f"dataset_stats={path}: wanted a JSON object, got {type(data).__name__}.")
        return cls.from_dict(data, source=f"dataset_stats={path}")


def _centre_and_spread(data: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    if method == "mean_std":
        return data.mean(axis=0), data.std(axis=0)
    if method == "quantiles":
        low, high = np.quantile(data, [0.01, 0.99], axis=0)
        return (low + high) / 2, (high - low) / 2
    raise StatsError(f"method={method!r}: must be mean_std or quantiles.")
