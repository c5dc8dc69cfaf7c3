"""The GPU benchmark's sizes, and an environment that costs nothing: what is left is the learner's time and memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlft.config.schema import RunConfig
from rlft.types import CameraSettings, ChunkStep, EnvSpec, Observation

ACT_STEPS, STATE, ACTION = 5, 9, 7  # A, S, d
INSTRUCTION = "push the cube to the goal region"


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        dry: test size on the CPU; says whether it runs, not how fast.
        device: of the model.
        kinds: π0's and π0.5's settings group at this size.
        rows: decisions of a rollout that is updated on.
        micro: rows of one pass.
        horizons: H.
        cameras: V.
        batches: of the sampler.
        sft_batch: of SFT.
        envs: E of the simulator.
        rounds: measurements of either side of a ratio.
    """

    dry: bool
    device: str
    kinds: Mapping[str, str]
    rows: int = 64
    micro: int = 32
    horizons: tuple[int, ...] = (50, 10)
    cameras: tuple[int, ...] = (3, 1)
    batches: tuple[int, ...] = (1, 16, 64)
    sft_batch: int = 16
    envs: tuple[int, ...] = (64, 128, 320)
    rounds: int = 3

    @property
    def on_gpu(self) -> bool:
        """Whether the model is on a CUDA device."""
        return not self.dry


REAL = Scale(dry=False, device="cuda:0", kinds={"pi0": "pi0", "pi05": "pi05"})
DRY = Scale(
    dry=True,
    device="cpu",
    kinds={"pi0": "small", "pi05": "small_pi05"},
    rows=4,
    micro=2,
    horizons=(10, 5),
    cameras=(2, 1),
    batches=(1, 2),
    sft_batch=4,
    envs=(9, 10, 12),
    rounds=1,
)


class StillEnv:
    """A :class:`rlft.types.VecEnv` whose images are random and never change; every chunk ends its episode.

    Args:
        num_envs: E.
        cameras: names and sizes.
    """

    def __init__(self, num_envs: int, cameras: Sequence[CameraSettings]) -> None:
        self.spec = EnvSpec(
            env_id="none",
            num_envs=num_envs,
            action_low=(-1.0,) * ACTION,
            action_high=(1.0,) * ACTION,
            state_dim=STATE,
            cameras=tuple(cameras),
            control_mode="none",
            control_hz=20.0,
            max_episode_steps=ACT_STEPS,
        )
        self._rng = np.random.default_rng(0)
        self._images = {
            c.name: self._rng.integers(0, 256, (num_envs, c.height, c.width, 3), dtype=np.uint8) for c in cameras
        }
        self._state = self._rng.uniform(-1, 1, (num_envs, STATE)).astype(np.float32)

    def reset(
        self, env_ids: Sequence[int], seeds: Sequence[int], configuration_ids: Sequence[int] | None = None
    ) -> Observation:
        """The same images as ever."""
        ids = list(env_ids)
        images = {name: frames[ids] for name, frames in self._images.items()}
        return Observation(images, self._state[ids], [INSTRUCTION] * len(ids))

    def step_chunk(self, actions: Any) -> ChunkStep:
        """Random rewards; the episode is over, so that no final value has to be computed."""
        E, A = actions.shape[:2]
        no = np.zeros(E, dtype=bool)
        return ChunkStep(
            obs=self.reset(range(E), [0] * E),
            rewards=self._rng.normal(size=(E, A)).astype(np.float32),
            n_executed=np.full(E, A),
            terminated=~no,
            truncated=no,
            success=no,
            success_now=no,
            invalid=no,
        )

    def record(self, env_ids: Sequence[int]) -> None:
        """Nothing is to be seen."""

    def take_frames(self, env_id: int) -> np.ndarray:
        """No frames."""
        return np.zeros((0, 0, 0, 3), np.uint8)

    def close(self) -> None:
        """Nothing is held."""


def environment(cfg: RunConfig, num_envs: int) -> StillEnv:
    """Still images from the settings' cameras."""
    return StillEnv(num_envs, [CameraSettings(c.name, c.height or 0, c.width or 0) for c in cfg.env.cameras])
