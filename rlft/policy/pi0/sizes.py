"""The small model's sizes, as plain numbers: settings are checked against them before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rlft.errors import ConfigError

QUERY_HEADS = 8  # written out in lerobot's joint attention
PATCH = 14  # SigLIP's patch, pixels
IMAGE_SIZE = 224  # pictures of the real sizes, pixels a side


def is_small(kind: str) -> bool:
    """Whether ``model.kind`` is one of the test sizes."""
    return kind.startswith("small")


def is_real(kind: str) -> bool:
    """Whether ``model.kind`` is a published architecture at its real size: it needs an image."""
    return kind in ("pi0", "pi05")


def stats_method(kind: str) -> str:
    """The statistics that an architecture's pretrained weights were normalised with: quantiles for π0.5."""
    return "quantiles" if kind.endswith("pi05") else "mean_std"


@dataclass
class SmallSize:
    """Sizes of the small model. Depth, head width and key heads are shared by both towers, as in π0.

    Attributes:
        image_size: square picture side, pixels; a multiple of 14.
        vlm_width: width of the language tower.
        expert_width: width of the action expert; even, because of its sinusoidal time embedding.
        depth: layers of each tower.
        head_dim: width of one of the 8 query heads; even, because of RoPE.
        kv_heads: key and value heads; divides 8.
        mlp_ratio: hidden width of the feed-forward blocks over the tower's width.
        vision_width: width of SigLIP; divisible by vision_heads.
        vision_depth: layers of SigLIP.
        vision_heads: heads of SigLIP.
        vocab: size of the vocabulary; at least that of the tokenizer.
    """

    image_size: int = 56
    vlm_width: int = 64
    expert_width: int = 64
    depth: int = 2
    head_dim: int = 16
    kv_heads: int = 1
    mlp_ratio: int = 4
    vision_width: int = 48
    vision_depth: int = 2
    vision_heads: int = 4
    vocab: int = 384

    def __post_init__(self) -> None:
        """Refuse sizes that the architecture cannot have."""
        for entry in fields(self):
            if getattr(self, entry.name) < 1:
                raise ConfigError(f"model.small.{entry.name}={getattr(self, entry.name)}: must be at least 1.")
        rules = [
            ("image_size", self.image_size % PATCH == 0, f"a multiple of {PATCH}"),
            ("expert_width", self.expert_width % 2 == 0, "even"),
            ("head_dim", self.head_dim % 2 == 0, "even"),
            ("kv_heads", QUERY_HEADS % self.kv_heads == 0, "1, 2, 4 or 8"),
            (
                "vision_width",
                self.vision_width % self.vision_heads == 0,
                f"divisible by vision_heads={self.vision_heads}",
            ),
        ]
        for name, ok, allowed in rules:
            if not ok:
                raise ConfigError(f"model.small.{name}={getattr(self, name)}: must be {allowed}.")

    @classmethod
    def from_settings(cls, values: Mapping[str, Any]) -> SmallSize:
        """Build from ``model.small``.

        Raises:
            ConfigError: an unknown name, a value that is no whole number, or a size that cannot be.
        """
        known = [entry.name for entry in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"model.small: unknown {unknown}; known are {known}.")
        for name, value in values.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(f"model.small.{name}={value!r}: must be a whole number.")
        return cls(**values)


def image_side(kind: str, small: Mapping[str, Any]) -> int:
    """Side of the square images that a policy sees, pixels; ``small`` is ``model.small``."""
    return SmallSize.from_settings(small).image_size if is_small(kind) else IMAGE_SIZE
