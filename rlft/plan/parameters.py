"""How many parameters a network has, which of them train, and what they weigh."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from rlft.config.schema import RunConfig
from rlft.plan.network import ACTION_WIDTH, TYPE_BYTES, NetworkSize, Tower
from rlft.policy.pi0.family import PATCH

NOISE_HIDDEN = 64  # rlft.policy.noise.NoiseHead
FLOAT = 4


@dataclass(frozen=True)
class Count:
    """Parameters: those in the towers' type, and those that stay float32 (SigLIP, norms, projections)."""

    typed: int = 0
    full: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.typed + other.typed, self.full + other.full)

    @property
    def total(self) -> int:
        """Both."""
        return self.typed + self.full

    def nbytes(self, dtype: str) -> int:
        """Bytes where the towers are of ``dtype``."""
        return self.typed * TYPE_BYTES[dtype] + self.full * FLOAT

    def gradient_bytes(self, dtype: str) -> int:
        """Gradients in float32; those of a low precision exist beside them until they are added up."""
        return self.total * FLOAT + (self.typed * TYPE_BYTES[dtype] if TYPE_BYTES[dtype] < FLOAT else 0)

    def optimizer_bytes(self, dtype: str) -> int:
        """AdamW's two moments in float32, and float32 masters of parameters of a low precision."""
        return self.total * 2 * FLOAT + (self.typed * FLOAT if TYPE_BYTES[dtype] < FLOAT else 0)


@dataclass(frozen=True)
class Parameters:
    """The network's parameters by what becomes of them.

    Attributes:
        prefix: SigLIP and language tower, as far as an action depends on them.
        expert: the action expert and the projections around it.
        dead: in the checkpoint and in memory, but no action depends on them: language heads, and the prefix's
            last layer beyond its keys and values.
    """

    prefix: Count
    expert: Count
    dead: Count

    @property
    def all(self) -> Count:
        """Everything that is held in memory."""
        return self.prefix + self.expert + self.dead


def count_parameters(size: NetworkSize) -> Parameters:
    """Count the parameters of lerobot's π0 or π0.5 of these sizes."""
    language, expert = size.language, size.expert
    keys = Count(typed=2 * language.width * size.kv_heads * size.head_dim)
    rest = Count(typed=_layer_matrices(size, language)) + Count(typed=-keys.typed)
    prefix = Count(full=_vision(size)) + Count(typed=size.vocab * language.width)
    prefix += Count(typed=(size.depth - 1) * (rest + keys).typed, full=(2 * size.depth - 1) * language.width) + keys
    dead = Count(typed=size.vocab * (language.width + expert.width))
    dead += rest + Count(full=2 * language.width)  # the last layer's second norm, and the final one
    return Parameters(prefix=prefix, expert=_expert(size), dead=dead)


def noise_head(size: NetworkSize) -> int:
    """Parameters of the learned exploration noise."""
    return _mlp((size.expert.width, NOISE_HIDDEN, ACTION_WIDTH))


def critic_head(cfg: RunConfig, size: NetworkSize, privileged_dim: int) -> int:
    """Parameters of the value head."""
    features = size.expert.width if cfg.critic.inputs != "privileged" else 0
    return 2 * features + _mlp((features + privileged_dim, *cfg.critic.hidden_dims, 1))


def _vision(size: NetworkSize) -> int:
    """SigLIP and the projection into the language tower."""
    v, out = size.vision, size.language.width
    patches = 3 * PATCH**2 * v.width + v.width + v.patches * v.width
    attention = 4 * (v.width**2 + v.width)
    mlp = _mlp((v.width, v.mlp, v.width))
    return patches + v.depth * (attention + mlp + 4 * v.width) + 2 * v.width + _mlp((v.width, out))


def _layer_matrices(size: NetworkSize, tower: Tower) -> int:
    """The matrices of one Gemma layer: queries, keys, values, output, and the gated feed-forward block."""
    queries, keys = size.heads * size.head_dim, size.kv_heads * size.head_dim
    return tower.width * (2 * queries + 2 * keys + 3 * tower.mlp)


def _expert(size: NetworkSize) -> Count:
    w = size.expert.width
    norms = (2 * size.depth + 1) * (_mlp((w, 3 * w)) if size.pi05 else w)
    time = _mlp((w, w, w)) if size.pi05 else _mlp((2 * w, w, w)) + _mlp((ACTION_WIDTH, w))  # π0's state with it
    ends = _mlp((ACTION_WIDTH, w)) + _mlp((w, ACTION_WIDTH))
    return Count(typed=size.depth * _layer_matrices(size, size.expert), full=norms + time + ends)


def _mlp(widths: tuple[int, ...]) -> int:
    """Linear layers with biases."""
    return sum(a * b + b for a, b in pairwise(widths))
