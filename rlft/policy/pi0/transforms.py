"""From what a camera and a robot report to what the network reads. One implementation for SFT, rollout, evaluation.

All of it is the *host half* of preparing an observation: nothing here goes to the policy's device, and nothing that a
GPU holds is waited for, but for one small read. What is on the host is worked on there and travels later, as one bundle
(:func:`rlft.placement.move`). Pictures are resized where they are: a GPU simulator's never see the host. Its state is
normalised where it is, too; only where it becomes text (π0.5) is it read, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody knows
from torch import Tensor

from rlft.data.normalize import NormStats
from rlft.placement import constant, to_host, to_numpy, together
from rlft.rows import PolicyInput
from rlft.types import Array, Observation

if TYPE_CHECKING:
    from rlft.policy.pi0.tokenizer import PromptTokenizer

STATE_BINS = 256  # π0.5 writes the state as text, in this many bins over [-1, 1]


def resize_with_pad(frames: Tensor, size: int) -> Tensor:
    """Fit frames into a square without distortion: antialiased, centred, padded with black.

    Args:
        frames: uint8 ``[n, 3, height, width]``.
        size: side of the square, pixels.

    Returns:
        uint8 ``[n, 3, size, size]``; the input itself where it already fits.
    """
    height, width = frames.shape[-2:]
    if height == size and width == size:
        return frames
    ratio = max(height, width) / size
    inner = (max(1, int(height / ratio)), max(1, int(width / ratio)))
    if inner != (height, width):
        floats = F.interpolate(frames.float(), size=inner, mode="bilinear", align_corners=False, antialias=True)
        frames = floats.round_().clamp_(0, 255).to(torch.uint8)
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    return F.pad(frames, (left, size - inner[1] - left, top, size - inner[0] - top))


def stack_cameras(images: Mapping[str, Array], cameras: Sequence[str], size: int, *, rows: int) -> Tensor:
    """Check, resize and stack the cameras that the policy reads, where they are.

    Args:
        images: camera name -> uint8 ``[n, height, width, 3]``, numpy or torch.
        cameras: the policy's cameras, in its order; others are left out.
        size: the model's resolution, pixels.
        rows: n.

    Returns:
        uint8 ``[n, V, 3, size, size]``; on the host, unless a camera's pictures are on a GPU: then there.

    Raises:
        ValueError: a camera is missing, or its type or layout is wrong.
    """
    missing = [name for name in cameras if name not in images]
    if missing:
        raise ValueError(
            f"Cameras {missing} are missing from the observation, which has {sorted(images)}; check env.cameras."
        )
    if not cameras:
        return torch.zeros((rows, 0, 3, size, size), dtype=torch.uint8)
    stacked = []
    for name in cameras:
        frames = torch.as_tensor(images[name])
        _check_frames(name, frames, rows)
        stacked.append(resize_with_pad(frames.movedim(-1, 1), size))
    return torch.stack(together(stacked), dim=1)


def state_prompt(instruction: str, state: np.ndarray) -> str:
    """π0.5's prompt: the instruction and the normalised state, written as bin numbers.

    Values outside [-1, 1] fall into the outermost bins, 0 and 255. lerobot and openpi write -1 for whatever is below
    -1, a number that is no bin; theirs and ours differ there, and nowhere else.

    Args:
        instruction: the task.
        state: ``[S]``, normalised.
    """
    bins = np.digitize(state, bins=np.linspace(-1, 1, STATE_BINS + 1)[:-1]) - 1
    bins = bins.clip(0, STATE_BINS - 1)
    text = instruction.strip().replace("_", " ").replace("\n", " ")
    return f"Task: {text}, State: {' '.join(map(str, bins))};\nAction: "


@dataclass(frozen=True)
class ObservationTransform:
    """Observation -> PolicyInput.

    Attributes:
        cameras: the cameras that the policy reads, in order.
        image_size: the model's resolution, pixels.
        state_width: the padded state's width.
        state_dims: where the S state dimensions sit in it.
        stats: normalisation.
        tokenizer: prompts to ids.
        state_in_prompt: π0.5: the state is written into the prompt.
    """

    cameras: tuple[str, ...]
    image_size: int
    state_width: int
    state_dims: tuple[int, ...]
    stats: NormStats
    tokenizer: PromptTokenizer
    state_in_prompt: bool

    def __call__(self, obs: Observation) -> PolicyInput:
        """Transform n rows; each part of the result is on the host, or on the GPU that the observation's was on.

        Raises:
            ValueError: names the part of the observation that is wrong.
        """
        raw = torch.as_tensor(obs.state, dtype=torch.float32)
        rows = len(raw)
        if raw.ndim != 2 or raw.shape[1] != self.stats.state_dim:
            raise ValueError(f"observation.state has shape {tuple(raw.shape)}; wanted [n, {self.stats.state_dim}].")
        if len(obs.task) != rows:
            raise ValueError(f"observation.task has {len(obs.task)} entries for {rows} rows.")
        state = normalize(to_host(raw) if self.state_in_prompt else raw, self.stats.state_mean, self.stats.state_std)
        tokens, mask = self.tokenizer.encode(self._prompts(obs.task, state), remember=not self.state_in_prompt)
        return PolicyInput(
            images=stack_cameras(obs.images, self.cameras, self.image_size, rows=rows),
            tokens=tokens,
            token_mask=mask,
            state=self._pad(state),
        )

    def _prompts(self, task: Sequence[str], state: Tensor) -> list[str]:
        if self.state_in_prompt:
            return [state_prompt(text, row) for text, row in zip(task, to_numpy(state))]
        return [text if text.endswith("\n") else f"{text}\n" for text in task]

    def _pad(self, state: Tensor) -> Tensor:
        padded = state.new_zeros(len(state), self.state_width)
        return padded.index_copy_(1, constant(self.state_dims, torch.int64, state.device), state)


def normalize(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """``(x - mean) / std`` over the last axis."""
    return (x - constant(tuple(mean), x.dtype, x.device)) / constant(tuple(std), x.dtype, x.device)


def denormalize(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The inverse of :func:`normalize`."""
    return x * constant(tuple(std), x.dtype, x.device) + constant(tuple(mean), x.dtype, x.device)


def _check_frames(name: str, frames: Tensor, rows: int) -> None:
    wanted = f"uint8 [{rows}, height, width, 3]"
    got = f"{str(frames.dtype).removeprefix('torch.')} {list(frames.shape)}"
    if frames.dtype != torch.uint8:
        raise ValueError(
            f"Camera {name!r}: got {got}, wanted {wanted}. "
            "Floats are refused because [0, 1] and [0, 255] cannot be told apart."
        )
    if frames.ndim == 4 and frames.shape[1] == 3 and frames.shape[-1] != 3:
        raise ValueError(f"Camera {name!r}: got {got}, channels first; wanted {wanted}, channels last.")
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) != rows:
        raise ValueError(f"Camera {name!r}: got {got}; wanted {wanted}.")
