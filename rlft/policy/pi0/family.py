"""What the settings say of π0 and π0.5, and the four kinds of them. Light: torch is imported where a policy is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlft.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from rlft.config.schema import ModelConfig
    from rlft.data.normalize import NormStats
    from rlft.policy.pi0.policy import Pi0Policy

QUERY_HEADS = 8  # written out in lerobot's joint attention
PATCH = 14  # SigLIP's patch, pixels
IMAGE_SIZE = 224  # images of the real sizes, pixels a side
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer"  # in the directory of a checkpoint
SHAPE = ("horizon", "num_steps", "real_dims", "state_dims")  # what a description says as a policy is built with it


@dataclass
class SmallSize:
    """Sizes of the small kinds, ``model.small``; depth, head width and key heads are shared by both towers."""

    image_size: int = 56  # square image side, pixels; a multiple of 14
    vlm_width: int = 64  # width of the language tower
    expert_width: int = 64  # width of the action expert; even, because of its sinusoidal time embedding
    depth: int = 2  # layers of each tower
    head_dim: int = 16  # width of one of the 8 query heads; even, because of RoPE
    kv_heads: int = 1  # key and value heads; divides 8
    mlp_ratio: int = 4  # hidden width of the feed-forward blocks over the tower's width
    vision_width: int = 48  # width of SigLIP; divisible by vision_heads
    vision_depth: int = 2  # layers of SigLIP
    vision_heads: int = 4  # heads of SigLIP
    vocab: int = 384  # size of the vocabulary; at least that of the tokenizer

    def __post_init__(self) -> None:
        """Refuse sizes that the architecture cannot have."""
        for name, value in asdict(self).items():
            if value < 1:
                raise ConfigError(f"model.small.{name}={value}: must be at least 1.")
        rules = [
            ("image_size", self.image_size % PATCH == 0, f"a multiple of {PATCH}"),
            ("expert_width", self.expert_width % 2 == 0, "even"),
            ("head_dim", self.head_dim % 2 == 0, "even"),
            ("kv_heads", QUERY_HEADS % self.kv_heads == 0, "1, 2, 4 or 8"),
            ("vision_width", self.vision_width % self.vision_heads == 0, f"a multiple of {self.vision_heads} heads"),
        ]
        for name, ok, allowed in rules:
            if not ok:
                raise ConfigError(f"model.small.{name}={getattr(self, name)}: must be {allowed}.")

    @classmethod
    def from_settings(cls, values: Mapping[str, Any]) -> SmallSize:
        """Build from ``model.small``; ConfigError for an unknown name, no whole number, or a size that cannot be."""
        known = [entry.name for entry in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ConfigError(f"model.small: unknown {unknown}; known are {known}.")
        for name, value in values.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(f"model.small.{name}={value!r}: must be a whole number.")
        return cls(**values)


@dataclass(frozen=True)
class Pi0Family:
    """A :class:`rlft.policy.base.PolicyFamily`: one architecture, small or at its real size."""

    kind: str  # its name in `model.kind`
    small: bool  # test size, which `model.small` may change; else the sizes are the published ones
    stats_method: str  # what the pretrained weights were normalised with
    Options: None = None

    def problems(self, model: ModelConfig, cameras: Sequence[str]) -> list[str]:
        """Sizes belong to the small kinds, and the real ones have to see something."""
        if self.small:
            return []
        sizes = (
            f"model.small = {model.small} with model.kind = {self.kind}: sizes can be set only with model.kind=small; "
            "remove them"
        )
        blind = f"env.cameras = [] with model.kind = {self.kind}: it needs at least one camera"
        return [text for text, wrong in ((sizes, model.small), (blind, not cameras)) if wrong]

    def image_size(self, model: ModelConfig) -> int:
        """Side of the square images, pixels."""
        return SmallSize.from_settings(model.small).image_size if self.small else IMAGE_SIZE

    def build(self, model: ModelConfig, stats: NormStats, *, weights: Path | None = None, **how: Any) -> Pi0Policy:
        """See :func:`rlft.policy.pi0.factory.build_policy`; the weights may be lerobot's own."""
        from rlft.policy.pi0.factory import build_policy

        file = None if weights is None else weights / WEIGHTS
        return build_policy(replace(model, kind=self.kind), stats, weights=file, **how)

    def save(self, policy: Pi0Policy, directory: Path) -> dict[str, Any]:
        """See :func:`rlft.policy.pi0.factory.save_policy`."""
        from rlft.policy.pi0.factory import save_policy

        return save_policy(policy, directory)

    def load(
        self, directory: Path, facts: Mapping[str, Any], model: ModelConfig, stats: NormStats, device: torch.device
    ) -> Pi0Policy:
        """The policy that was saved; with a tokenizer of the settings', where they name one."""
        tokenizer, how = model.tokenizer_path, {name: facts[name] for name in SHAPE}
        policy = self.build(
            replace(model, small=facts["small"], tokenizer_path=tokenizer or str(directory / TOKENIZER)),
            stats,
            weights=None if device.type == "meta" else directory,
            device=device,
            tokenizer_source=tokenizer or facts["tokenizer_source"],
            **how,
        )
        policy.prompt_length = facts["token_length"]
        return policy

    def check(self, directory: Path, facts: Mapping[str, Any] | None, model: ModelConfig) -> None:
        """Compare the keys and shapes in the file of weights with the architecture's."""
        from rlft.policy.pi0.factory import core_shapes
        from rlft.policy.weights_io import check_weights

        wanted = replace(model, kind=self.kind, small=facts["small"] if facts else model.small)
        check_weights(directory / WEIGHTS, core_shapes(wanted))


PI0 = Pi0Family("pi0", small=False, stats_method="mean_std")
PI05 = Pi0Family("pi05", small=False, stats_method="quantiles")
SMALL = Pi0Family("small", small=True, stats_method="mean_std")
SMALL_PI05 = Pi0Family("small_pi05", small=True, stats_method="quantiles")
