"""Prefixes of a dataset's frames: with the VLM frozen they are the same in every epoch, so each is computed once."""

import logging
import math

import torch

from rlft.config.learning import SftConfig
from rlft.data.dataset import DemoSet
from rlft.errors import ConfigError
from rlft.placement import SHARE, free_bytes, gigabytes, move
from rlft.policy.base import FlowPolicy, Prefix
from rlft.rows import padded

log = logging.getLogger(__name__)

HOST_TOKENS = 256  # encoded at once by a CPU: on two cores, more did not make the small model's products faster
GPU_TOKENS = 2**14  # and by a GPU: a guess, not measured, that a single frame's hundreds of tokens leave it idle


class PrefixCache:
    """The prefixes of a dataset, on the policy's device; each is encoded when it is first asked for.

    Frames are encoded in blocks that their own numbers define, never in the batch that happened to ask: the shape of a
    product decides how it is rounded, and a resumed run asks in other batches than the one it continues.

    The policy's prefix must not train; ``sample`` is that of one frame, as wide as any, for shapes and types.
    """

    block: int  # frames that are encoded together

    def __init__(self, policy: FlowPolicy, demos: DemoSet, sample: Prefix) -> None:
        self.policy, self.demos = policy, demos
        self._store = sample.map(lambda x: x.new_empty((len(demos), *x.shape[1:])))
        on_cpu = all(x.is_cpu for x in sample.tensors().values())
        self.set_block(max(1, (HOST_TOKENS if on_cpu else GPU_TOKENS) // sample.tokens))

    def set_block(self, frames: int) -> None:
        """Encode so many frames together; what was encoded in other blocks is forgotten."""
        self.block = frames
        self._filled = torch.zeros(math.ceil(len(self.demos) / frames), dtype=torch.bool)

    def rows(self, index: torch.Tensor) -> Prefix:
        """The prefixes of frames, int64 ``[B]`` on the CPU -> B rows."""
        blocks = torch.unique(index // self.block)
        for block in blocks[~self._filled[blocks]].tolist():
            self._encode(block)
        return self._store[move(index, self.policy.device)]

    @torch.no_grad()
    def _encode(self, block: int) -> None:
        first, end = block * self.block, min((block + 1) * self.block, len(self.demos))
        prefix = self.policy.encode(self.policy.prepare(self.demos.rows(torch.arange(first, end)).obs))
        for name, stored in self._store.tensors().items():
            stored[first:end] = padded(getattr(prefix, name), stored.shape[1:])  # a block of short prompts is narrower
        self._filled[block] = True


def prefix_cache(policy: FlowPolicy, demos: DemoSet, cfg: SftConfig, *, randomized: bool = False) -> PrefixCache | None:
    """Decide by ``sft.cache_prefix``; says in the log what was decided and why.

    With ``randomized``, a frame's image is another in every step, and so is its prefix.

    Returns:
        the empty cache, or None: the prefix trains, or is to be encoded anew in every step.

    Raises:
        ConfigError: it is asked for, but the frames do not fit, or their images change.
    """
    if not cfg.train_expert_only or cfg.cache_prefix is False:
        return None
    if randomized:
        if cfg.cache_prefix:
            raise ConfigError(
                "sft.cache_prefix=true: domain_randomization changes the images in every step; set "
                "sft.cache_prefix=null, or domain_randomization.sft=false"
            )
        log.info("prefixes are encoded anew in every step, because domain_randomization changes the images")
        return None
    sample = _sample(policy, demos)
    each = sum(x.nbytes for x in sample.tensors().values())
    needed, free = each * len(demos), free_bytes(policy.device)
    sum_text = (
        f"{len(demos)} frames x {each / 1e6:.3g} MB = {gigabytes(needed)}; "
        f"{SHARE:.0%} of the {gigabytes(free)} free on {policy.device} is {gigabytes(SHARE * free)}"
    )
    if needed <= (free if cfg.cache_prefix else SHARE * free):
        log.info("each frame's prefix is encoded once and kept (%s)", sum_text)
        return PrefixCache(policy, demos, sample)
    if cfg.cache_prefix:
        raise ConfigError(
            f"sft.cache_prefix=true: the prefixes do not fit ({sum_text}); set sft.cache_prefix=null to encode them "
            "anew in every step, record fewer frames, use fewer cameras, or set model.dtype=bfloat16"
        )
    log.info("prefixes are encoded anew in every step, because they do not fit (%s)", sum_text)
    return None


@torch.no_grad()
def _sample(policy: FlowPolicy, demos: DemoSet) -> Prefix:
    """One frame's prefix, as wide as that of any: a transform pads the rows of a batch alike, so one of each task."""
    first = {task: frame for frame, task in reversed(list(enumerate(demos.tasks)))}
    inputs = policy.transform(demos.rows(torch.tensor(sorted(first.values()))).obs)
    return policy.encode(move(inputs[:1], policy.device))
