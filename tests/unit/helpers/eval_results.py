"""Results of evaluations that nobody had to run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rlft.evaluate.protocol import EvalProtocol
from rlft.evaluate.result import EpisodeResult, EvalResult, summarise
from rlft.types import CameraSettings, EnvSettings

SEED = 1_000_000


def eval_result(
    label: str, outcomes: Sequence[bool], labels: Sequence[Mapping[str, str]] = (), *, gain: float = 1.0, **protocol
) -> EvalResult:
    """Episode i succeeds as ``outcomes[i]`` says, and returns ``gain`` then; ``protocol``: changed fields of it."""
    settings = EnvSettings(
        "maniskill", "PushCube-v1", 2, 50, "pd_ee_delta_pos", (CameraSettings("base_camera", 56, 64),)
    )
    given = EvalProtocol.of(
        settings, select="seeds", episodes=len(outcomes), seed=SEED, configuration_ids=None, num_steps=4, act_steps=5
    )
    episodes = [
        EpisodeResult(i, SEED + i, None, labels[i] if labels else {}, won, won, 20 if won else 50, gain * won)
        for i, won in enumerate(outcomes)
    ]
    return summarise(label, replace(given, **protocol), episodes, seconds=12.5, restarted=0)
