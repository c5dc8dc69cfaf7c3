"""From what cameras and a robot report to what the network reads. One implementation for SFT, rollout, evaluation.

All of it is the *host half* of preparing an observation: nothing here goes to the policy's device, and nothing that a
GPU holds is waited for, but for one small read. What is on the host is worked on there and travels later, as one bundle
(:func:`rlft.placement.move`). Images are resized where they are: a GPU simulator's never see the host. Its state is
normalised where it is, too; only where it becomes text (π0.5) is it read, once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlft.data.normalize import NormStats
from rlft.placement import constant, to_host, to_numpy
from rlft.policy.base import normalize
from rlft.policy.images import stack_cameras
from rlft.policy.pi0.tokenizer import PromptTokenizer
from rlft.rows import PolicyInput
from rlft.types import Observation

STATE_BINS = 256  # π0.5 writes the state as text, in this many bins over [-1, 1]


@dataclass
class Pi0Input(PolicyInput):
    """Model inputs: normalised, resized, tokenised. n rows."""

    images: Tensor  # uint8 `[n, V, 3, h, w]` at model resolution (the policy itself maps them to [-1, 1])
    tokens: Tensor  # int64 `[n, L]` language token ids
    token_mask: Tensor  # bool `[n, L]`, False on padding
    state: Tensor  # float32 `[n, D]`, normalised, zero-padded to D


def state_prompt(instruction: str, state: np.ndarray) -> str:
    """π0.5's prompt: the instruction and the normalised state ``[S]``, written as bin numbers.

    A value below -1 is written as 0 and one above 1 as 255, the outermost bins. lerobot and openpi write -1 for
    whatever is below -1, which is the number of no bin; theirs and ours differ there, and nowhere else.
    """
    bins = np.digitize(state, bins=np.linspace(-1, 1, STATE_BINS + 1)[:-1]) - 1
    bins = bins.clip(0, STATE_BINS - 1)  # digitize gives 0 below the first edge, so the line above gives -1 there
    text = instruction.strip().replace("_", " ").replace("\n", " ")
    return f"Task: {text}, State: {' '.join(map(str, bins))};\nAction: "


@dataclass(frozen=True)
class ObservationTransform:
    """Observation -> :class:`Pi0Input`."""

    image_size: int  # the model's resolution, pixels
    state_width: int  # the padded state's width
    state_dims: tuple[int, ...]  # where the S state dimensions sit in it
    stats: NormStats  # normalisation; its cameras are read, in order
    tokenizer: PromptTokenizer  # prompts to ids
    state_in_prompt: bool  # π0.5: the state is written into the prompt

    def __call__(self, obs: Observation) -> Pi0Input:
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
        if self.state_in_prompt:
            prompts = [state_prompt(text, row) for text, row in zip(obs.task, to_numpy(state))]
            # Every number takes its three digits in here: the width then follows from the instructions alone, and
            # no row, batch or step of a rollout has another one because its state happens to be shorter to write.
            widest = [state_prompt(text, np.ones(state.shape[1])) for text in dict.fromkeys(obs.task)]
        else:
            prompts, widest = [text if text.endswith("\n") else f"{text}\n" for text in obs.task], []
        tokens, mask = self.tokenizer.encode(prompts, at_least=widest)
        padded = state.new_zeros(rows, self.state_width)
        return Pi0Input(
            images=stack_cameras(obs.images, self.stats.cameras, self.image_size, rows=rows),
            tokens=tokens,
            token_mask=mask,
            state=padded.index_copy_(1, constant(self.state_dims, torch.int64, state.device), state),
        )
