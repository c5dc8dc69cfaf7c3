"""Bytes that a backward pass keeps alive, and bytes that a pass without gradients needs in passing.

Every function counts, tensor by tensor, what autograd saves in :mod:`rlft.policy.pi0.forward` and in lerobot's modules.
Attention goes through a fused kernel, which keeps queries, keys, values, its output and a sum per query, and no
weights. Norms compute in float32 whatever the towers' type: the stream, its float32 copy where the stream is
bfloat16, the normalised stream and the scaled one are 12 bytes a number in either type.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlft.config.schema import RunConfig
from rlft.plan.network import ACTION_WIDTH, TYPE_BYTES, NetworkSize, Tower
from rlft.plan.parameters import NOISE_HIDDEN

FLOAT = 4
NORM = 12  # bytes a norm keeps per number


@dataclass(frozen=True)
class Saved:
    """What one pass saves for its backward.

    Attributes:
        inputs: what gradient checkpointing cannot spare: the layers' inputs.
        layers: what the layers save beside their inputs; all of it, without checkpointing.
        largest: of these, the layer (SigLIP: the whole) that needs most, held alone while it is computed again.
        rest: embeddings, heads, masks.
    """

    inputs: int = 0
    layers: int = 0
    largest: int = 0
    rest: int = 0

    def __add__(self, other: Saved) -> Saved:
        return Saved(
            self.inputs + other.inputs,
            self.layers + other.layers,
            max(self.largest, other.largest),
            self.rest + other.rest,
        )

    def nbytes(self, *, checkpointing: bool) -> int:
        """Bytes at the peak."""
        return self.inputs + self.rest + (self.largest if checkpointing else self.layers)


def saved_by_expert(size: NetworkSize, rows: int, steps: int) -> Saved:
    """The expert's forward pass.

    Args:
        size: the network.
        rows: m, observations.
        steps: r, denoise steps of each.
    """
    n, s, w, b = rows * steps, size.suffix_tokens, size.expert.width, TYPE_BYTES[size.dtype]
    seen = size.prefix_tokens + steps * s
    stream = n * s * w * b
    keys = rows * seen * 2 * size.kv_heads * size.head_dim * b
    masked = rows if size.pi05 else 1  # π0's prompts are equally long, and one bias serves all rows
    bias = masked * steps * s * (size.heads // size.kv_heads) * -(-seen // 8) * 8 * b  # rows begin at multiples of 8
    layer = n * s * _layer(size, size.expert) + keys + (n * _modulation(size) if size.pi05 else 0)
    final = n * s * w * (NORM - b)
    angles = n * s * size.head_dim * b
    rest = final + bias + angles + n * _ends(size)
    # The stream enters every layer, and the final norm.
    return Saved(inputs=(size.depth + 1) * stream, layers=size.depth * layer, largest=layer, rest=rest)


def saved_by_heads(cfg: RunConfig, size: NetworkSize, rows: int, steps: int, privileged_dim: int) -> int:
    """Exploration noise, log-probabilities and value head."""
    n, h, w = rows * steps, size.horizon, size.expert.width
    densities = 2 * cfg.act_steps * ACTION_WIDTH
    learned = cfg.exploration.method == "flow_noise" and cfg.exploration.learn_std
    noise = h * (w + 2 * NOISE_HIDDEN + 2 * ACTION_WIDTH) if learned else 0
    features = w if cfg.critic.inputs != "privileged" else 0
    critic = 2 * features + privileged_dim + 2 * sum(cfg.critic.hidden_dims)
    return FLOAT * (n * (densities + noise) + rows * critic)


def saved_by_prefix(size: NetworkSize, rows: int) -> Saved:
    """The forward pass of SigLIP and the language tower, where they train."""
    n, w, b = size.prefix_tokens, size.language.width, TYPE_BYTES[size.dtype]
    keys = n * 2 * size.kv_heads * size.head_dim * b
    layer = n * _layer(size, size.language) + keys
    last = n * w * (NORM - b)
    vision = size.cameras * _vision(size)
    pixels = size.cameras * 3 * size.vision.side**2 * FLOAT
    rest = last + pixels + n * (size.head_dim + n) * b  # angles, and the mask's bias
    return Saved(
        inputs=rows * size.depth * n * w * b,
        layers=rows * ((size.depth - 1) * layer + vision),
        largest=rows * max(layer, vision),
        rest=rows * rest,
    )


def encode_bytes(size: NetworkSize, rows: int) -> int:
    """The most that encoding ``rows`` observations without gradients holds at once, its result included.

    Either SigLIP is at its widest, in a feed-forward block or where the pictures are cut into patches, or the language
    tower is, with the keys of all layers before.
    """
    v, n, b = size.vision, size.prefix_tokens, TYPE_BYTES[size.dtype]
    w, queries = size.language.width, size.heads * size.head_dim
    pixels = 3 * v.side**2 * FLOAT
    widest = FLOAT * v.patches * (2 * v.mlp + 6 * v.width)
    pictures = size.cameras * (pixels + max(pixels, widest))
    tower = n * (FLOAT * w + b * (4 * w + 2 * queries + 3 * size.language.mlp))
    return rows * max(pictures, tower + size.kv_row_bytes(size.dtype))


def denoise_bytes(size: NetworkSize, rows: int) -> int:
    """The most that a denoise step of ``rows`` chunks holds without gradients: a layer of the expert, keys joined."""
    b, tower, tokens = TYPE_BYTES[size.dtype], size.expert, size.prefix_tokens + size.horizon
    queries = size.heads * size.head_dim
    layer = size.horizon * (FLOAT * tower.width + b * (4 * tower.width + 2 * queries + 3 * tower.mlp))
    joined = 2 * 2 * size.kv_heads * tokens * size.head_dim * b
    bias = 2 * FLOAT * size.heads * size.horizon * tokens
    return rows * (layer + joined + bias)


def _layer(size: NetworkSize, tower: Tower) -> int:
    """One Gemma layer, per token, without its input and its keys."""
    b, queries = TYPE_BYTES[size.dtype], size.heads * size.head_dim
    norms = 2 * (NORM * tower.width + FLOAT) - b * tower.width
    attention = 2 * queries * b * (1 if size.kv_heads == 1 else 1.5) + size.heads * FLOAT
    gated = 2 * tower.width * b if size.pi05 and tower is size.expert else 0
    return norms + int(attention) + 4 * tower.mlp * b + gated


def _modulation(size: NetworkSize) -> int:
    """AdaRMS: scale, shift and gate of a layer's two norms, per row."""
    return 2 * size.expert.width * (FLOAT + (3 * FLOAT if size.dtype == "float32" else TYPE_BYTES[size.dtype]))


def _ends(size: NetworkSize) -> int:
    """Projections around the expert, per row: float32."""
    h, w = size.horizon, size.expert.width
    time = 5 * w if size.pi05 else ACTION_WIDTH + h * 4 * w
    return FLOAT * (time + h * (ACTION_WIDTH + w))


def _vision(size: NetworkSize) -> int:
    """SigLIP, one picture: float32."""
    v = size.vision
    layer = 8 * v.width + 2 * v.mlp + v.heads + 4
    return FLOAT * v.patches * (v.depth * layer + 2 * v.width)
