"""The sizes of the network that a run's settings describe, as plain numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlft.config.schema import RunConfig
from rlft.policy.pi0.family import IMAGE_SIZE, PATCH, QUERY_HEADS, SmallSize

ACTION_WIDTH = 32  # D, and the padded state's width
WORDS = 9  # of an instruction, where the task's own is taken
FRAME_TOKENS = 3  # beginning, full stop, newline
PI05_FRAME_TOKENS = 13  # the same, and "Task: ... State: ...; Action:"
PI05_MAX_TOKENS = 200
NUMBER_TOKENS = 4  # π0.5 writes every state number as up to three digits and a space
STATE_WIDTHS = {"tcp_pos": 3, "tcp_pose": 7, "qpos": 9, "qvel": 9, "gripper": 1, "goal_pos": 3}
TYPE_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Tower:
    """A stack of Gemma layers.

    Attributes:
        width: of the residual stream.
        mlp: hidden width of the feed-forward blocks.
    """

    width: int
    mlp: int


@dataclass(frozen=True)
class Vision:
    """SigLIP.

    Attributes:
        side: picture side, pixels.
        width: of the residual stream.
        mlp: hidden width of the feed-forward blocks.
        depth: layers.
        heads: attention heads.
    """

    side: int
    width: int
    mlp: int
    depth: int
    heads: int

    @property
    def patches(self) -> int:
        """Tokens of one picture."""
        return (self.side // PATCH) ** 2


@dataclass(frozen=True)
class NetworkSize:
    """π0 or π0.5 at some size.

    Attributes:
        pi05: π0.5: time enters through AdaRMS norms, the state through the prompt.
        vision: SigLIP.
        language: the language tower.
        expert: the action expert.
        depth: layers of either tower.
        heads: query heads of either.
        kv_heads: key heads of either.
        head_dim: width of a head of either.
        vocab: of the language tower.
        cameras: V.
        tokens: L, language tokens.
        horizon: H.
        dtype: type of the towers' large matrices, ``float32`` or ``bfloat16``.
    """

    pi05: bool
    vision: Vision
    language: Tower
    expert: Tower
    depth: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    cameras: int
    tokens: int
    horizon: int
    dtype: str

    @property
    def prefix_tokens(self) -> int:
        """N: pictures and language."""
        return self.cameras * self.vision.patches + self.tokens

    @property
    def suffix_tokens(self) -> int:
        """S: the chunk, and π0's state."""
        return self.horizon + (0 if self.pi05 else 1)

    def kv_row_bytes(self, dtype: str) -> int:
        """One observation's keys and values, bytes."""
        return self.depth * 2 * self.kv_heads * self.prefix_tokens * self.head_dim * TYPE_BYTES[dtype]


def network_of(cfg: RunConfig, *, tokens: int | None = None, checkpoint: bool = True) -> NetworkSize:
    """The network that a run trains.

    Args:
        cfg: settings.
        tokens: L where it is known; None: as the checkpoint, the instruction or experience say.
        checkpoint: read the sizes of the checkpoint in ``model.path``, as train_rl does.
    """
    facts = _description(cfg.model.path) if checkpoint and cfg.model.path is not None else None
    kind = facts["kind"] if facts else cfg.model.kind
    horizon = facts["horizon"] if facts else cfg.n_action_steps
    cameras = len(facts["stats"]["cameras"]) if facts else len(cfg.env.cameras)
    known = facts["token_length"] if facts and tokens is None else tokens
    pi05 = kind.endswith("pi05")
    length = known or prompt_tokens(cfg, pi05=pi05)
    rest: dict[str, Any] = {
        "pi05": pi05,
        "cameras": cameras,
        "tokens": length,
        "horizon": horizon,
        "dtype": cfg.model.dtype,
    }
    if kind.startswith("small"):
        return _small(SmallSize.from_settings((facts["small"] if facts else cfg.model.small) or {}), rest)
    return NetworkSize(
        vision=Vision(side=IMAGE_SIZE, width=1152, mlp=4304, depth=27, heads=16),
        language=Tower(width=2048, mlp=16384),
        expert=Tower(width=1024, mlp=4096),
        depth=18,
        heads=QUERY_HEADS,
        kv_heads=1,
        head_dim=256,
        vocab=257152,
        **rest,
    )


def _small(size: SmallSize, rest: dict[str, Any]) -> NetworkSize:
    ratio = size.mlp_ratio
    return NetworkSize(
        vision=Vision(
            side=size.image_size,
            width=size.vision_width,
            mlp=size.vision_width * ratio,
            depth=size.vision_depth,
            heads=size.vision_heads,
        ),
        language=Tower(width=size.vlm_width, mlp=size.vlm_width * ratio),
        expert=Tower(width=size.expert_width, mlp=size.expert_width * ratio),
        depth=size.depth,
        heads=QUERY_HEADS,
        kv_heads=size.kv_heads,
        head_dim=size.head_dim,
        vocab=size.vocab,
        **rest,
    )


def prompt_tokens(cfg: RunConfig, *, pi05: bool) -> int:
    """An estimate, about a token per word; only the tokenizer and the task know."""
    words = WORDS if cfg.env.instruction is None else len(cfg.env.instruction.split())
    if not pi05:
        return words + FRAME_TOKENS
    numbers = sum(STATE_WIDTHS.get(term, 3) for term in cfg.env.state_terms)
    return min(words + PI05_FRAME_TOKENS + NUMBER_TOKENS * numbers, PI05_MAX_TOKENS)


def _description(path: str) -> dict[str, Any] | None:
    """What :mod:`rlft.policy.pretrained` wrote beside the weights; None where it is not there (yet)."""
    file = Path(path) / "rlft_policy.json"
    return json.loads(file.read_text()) if file.is_file() else None
