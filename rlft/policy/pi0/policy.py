"""lerobot's π0 and π0.5 as a FlowPolicy, and the way from what cameras and a robot report to what the network reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lerobot.policies.pi05.modeling_pi05 import PI05Pytorch
from torch import Tensor, nn

from rlft.data.normalize import NormStats
from rlft.placement import constant, to_host, to_numpy
from rlft.policy.base import FlowPolicy, Prefix, checked_dims, normalize
from rlft.policy.images import stack_cameras
from rlft.policy.pi0 import forward
from rlft.policy.pi0.tokenizer import PromptTokenizer
from rlft.rows import PolicyInput
from rlft.types import Observation

WORDS, FRAME, STATE_FRAME, NUMBER = 9, 3, 13, 4  # tokens: an instruction, around it, around a state too, of a number
COMPILED_LENGTHS = 16  # tokens: prompts of a compiled policy are padded to multiples, for each new length compiles anew
STATE_BINS = 256  # π0.5 writes the state as text, in this many bins over [-1, 1]


@dataclass
class Pi0Input(PolicyInput):
    """Model inputs: normalised, resized, tokenised. n rows."""

    images: Tensor  # uint8 `[n, V, 3, h, w]` at model resolution (the policy itself maps them to [-1, 1])
    tokens: Tensor  # int64 `[n, L]` language token ids
    token_mask: Tensor  # bool `[n, L]`, False on padding
    state: Tensor  # float32 `[n, D]`, normalised, zero-padded to D


@dataclass
class Pi0Prefix(Prefix):
    """The encoded observation."""

    kv: Tensor  # `[n, L, 2, kv_heads, N, head_dim]` keys (after RoPE) and values of every layer
    mask: Tensor  # bool `[n, N]`, False on padded positions
    state: Tensor  # float32 `[n, D]`, enters with the action expert (π0) or is unused (π0.5)

    @property
    def tokens(self) -> int:
        """N, image patches and language."""
        return self.mask.shape[1]


class Pi0Policy(FlowPolicy):
    """A flow policy around lerobot's core; its state dict is that of lerobot's own policy."""

    model: Any  # lerobot's PI0Pytorch or PI05Pytorch, or a small one; lerobot is untyped
    config: Any  # lerobot's configuration of it
    tokenizer: Any  # a PromptTokenizer; None where there are shapes alone, which read no prompts
    state_dims: tuple[int, ...]  # where the S state dimensions sit in the model's state
    train_vlm: bool  # whether gradients reach SigLIP and the language tower

    def __init__(
        self,
        model: nn.Module,
        stats: NormStats,
        tokenizer: PromptTokenizer | None,
        *,
        real_dims: Sequence[int] | None = None,
        state_dims: Sequence[int] | None = None,
        train_vlm: bool = False,
        recompute: bool = False,
    ) -> None:
        config: Any = model.config
        super().__init__(
            stats,
            horizon=config.chunk_size,
            action_width=config.max_action_dim,
            feature_dim=model.action_in_proj.out_features,  # type: ignore[union-attr, arg-type]
            image_size=config.image_resolution[0],
            real_dims=real_dims,
        )
        self.model, self.config, self.dtype = model, config, config.dtype
        self.is_pi05 = isinstance(model, PI05Pytorch)
        self.state_width, self.recompute = config.max_state_dim, recompute
        self.state_dims = checked_dims("state_dims", state_dims, stats.state_dim, self.state_width)
        self._expert_layers: Callable[..., Tensor] = forward.expert_layers
        self.tokenizer = tokenizer
        self.set_trainable(vlm=train_vlm)

    def transform(self, obs: Observation) -> Pi0Input:
        """See :meth:`rlft.policy.base.FlowPolicy.transform`: one implementation for SFT, rollout and evaluation.

        Each part stays where it was, on the host or on a GPU simulator's device, for nothing that a GPU holds is to be
        waited for. Only a state that becomes text (π0.5) is read, once.
        """
        stats, raw = self.stats, torch.as_tensor(obs.state, dtype=torch.float32)
        rows = len(raw)
        if raw.ndim != 2 or raw.shape[1] != stats.state_dim:
            raise ValueError(f"observation.state has shape {tuple(raw.shape)}; wanted [n, {stats.state_dim}].")
        if len(obs.task) != rows:
            raise ValueError(f"observation.task has {len(obs.task)} entries for {rows} rows.")
        state = normalize(to_host(raw) if self.is_pi05 else raw, stats.state_mean, stats.state_std)
        if self.is_pi05:
            prompts = [state_prompt(text, row) for text, row in zip(obs.task, to_numpy(state))]
            # Every number takes its three digits in here: the width then follows from the instructions alone, and
            # no row, batch or step of a rollout has another one because its state happens to be shorter to write.
            widest = [state_prompt(text, np.ones(state.shape[1])) for text in dict.fromkeys(obs.task)]
        else:
            prompts, widest = [text if text.endswith("\n") else f"{text}\n" for text in obs.task], []
        tokens, mask = self.tokenizer.encode(prompts, at_least=widest)
        self.prompt_length = max(self.prompt_length, tokens.shape[1])
        images = stack_cameras(obs.images, self.cameras, self.image_size, rows=rows)
        padded = state.new_zeros(rows, self.state_width)
        where = constant(self.state_dims, torch.int64, state.device)
        return Pi0Input(images, tokens, mask, padded.index_copy_(1, where, state))

    def blank_inputs(self, rows: int, prompt_length: int = 0) -> Pi0Input:
        """See :meth:`rlft.policy.base.FlowPolicy.blank_inputs`."""
        with self.device:
            images = torch.zeros(rows, len(self.cameras), 3, *[self.image_size] * 2, dtype=torch.uint8)
            tokens, state = torch.zeros(rows, prompt_length, dtype=torch.int64), torch.zeros(rows, self.state_width)
            return Pi0Input(images, tokens, torch.ones_like(tokens, dtype=torch.bool), state)

    def expected_prompt_length(self, instruction: str | None) -> int:
        """About a token per word, and π0.5's numbers; only the tokenizer and the task know."""
        if self.prompt_length:
            return self.prompt_length
        words = WORDS if instruction is None else len(instruction.split())
        frame, numbers = (STATE_FRAME, NUMBER * self.stats.state_dim) if self.is_pi05 else (FRAME, 0)
        return min(self.config.tokenizer_max_length, words + frame + numbers)

    def encode(self, inputs: Any) -> Pi0Prefix:
        """See :meth:`rlft.policy.base.FlowPolicy.encode`. Without gradients where the VLM is frozen."""
        backbone = self.model.paligemma_with_expert
        recompute = self.recompute and self.train_vlm
        with torch.set_grad_enabled(self.train_vlm and torch.is_grad_enabled()):
            embeds = forward.embed_prefix(backbone, inputs.images, inputs.tokens, recompute=recompute)
            images = inputs.token_mask.new_ones(len(embeds), embeds.shape[1] - inputs.tokens.shape[1])
            mask = torch.cat([images, inputs.token_mask], dim=1)  # [n, N], patches are never padding
            kv = forward.prefix_kv(backbone.paligemma.model.language_model, embeds, mask, recompute=recompute)
        return Pi0Prefix(kv=kv.to(self.prefix_dtype or kv.dtype), mask=mask, state=inputs.state)

    def velocity(self, prefix: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`rlft.policy.base.FlowPolicy.velocity`."""
        rows, rest = divmod(len(x), len(prefix))
        if rest or rows == 0:
            raise ValueError(f"velocity: {len(x)} chunks for {len(prefix)} prefixes; wanted a whole multiple.")
        state = None if self.is_pi05 else prefix.state.repeat_interleave(rows, dim=0)
        embeds, cond = forward.embed_suffix(self.model, state, x, t)
        tower = self.model.paligemma_with_expert.gemma_expert.model
        size: dict[str, Any] = {"rows": rows, "suffix": embeds.shape[1], "lone_first": not self.is_pi05}
        context = prefix.cached(tuple(size.values()), lambda: forward.suffix_context(tower, prefix.mask, **size))
        features = self._expert_layers(tower, embeds, context.angles, context.bias, prefix.kv, cond, self.recompute)
        features = features[:, -self.horizon :].float()  # without π0's state token
        return self.model.action_out_proj(features), features

    def compile_denoise_step(self) -> None:
        """Compile the expert's layers (``torch.compile``); each new batch shape compiles once more."""
        self._expert_layers = torch.compile(forward.expert_layers, dynamic=False)
        self.tokenizer.multiple = COMPILED_LENGTHS

    def set_trainable(self, *, vlm: bool) -> None:
        """The expert with its projections trains, and the prefix too if ``vlm``."""
        self.train_vlm = vlm
        # Language heads, and what the prefix's last layer computes beyond keys and values: no action depends on them.
        dead = forward.dead_parameters(self.model.paligemma_with_expert)
        for name, parameter in self.model.named_parameters():
            frozen = not vlm and name.startswith("paligemma_with_expert.paligemma.")
            parameter.requires_grad_(not frozen and id(parameter) not in dead)


def state_prompt(instruction: str, state: np.ndarray) -> str:
    """π0.5's prompt: the instruction and the normalised state ``[S]``, written as bin numbers.

    A value below -1 is written as 0 and one above 1 as 255, the outermost bins. lerobot and openpi write -1 for
    whatever is below -1, which is the number of no bin; theirs and ours differ there, and nowhere else.
    """
    bins = np.digitize(state, bins=np.linspace(-1, 1, STATE_BINS + 1)[:-1]) - 1
    bins = bins.clip(0, STATE_BINS - 1)  # digitize gives 0 below the first edge, so the line above gives -1 there
    text = instruction.strip().replace("_", " ").replace("\n", " ")
    return f"Task: {text}, State: {' '.join(map(str, bins))};\nAction: "
