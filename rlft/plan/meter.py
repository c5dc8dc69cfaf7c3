"""FLOPs and live bytes of any torch code, op by op; of tensors on the meta device too, which take no memory."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody knows
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Cost(NamedTuple):
    """FLOPs (two per multiply-add of products and attention), and the most bytes held at once beside those before."""

    flops: int
    peak: int


class Meter(TorchDispatchMode):
    """FLOPs of the block, and bytes of the storages that are made in it: ``alive`` now, and ``peak``, the most ever.

    torch's ``FlopCounterMode`` is its table of formulas with hooks on modules. These hooks keep what gradient
    checkpointing would free; the table alone does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.alive = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # The storage of a view, or of an argument that is given back, was there before: here, or outside the block.
        known = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs or {})) if isinstance(x, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        made = [x.untyped_storage() for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        for storage in made:
            if id(storage) not in known and id(storage) not in self._seen:
                self._hold(storage, id(storage), storage.nbytes())
        return out

    def _hold(self, storage: Any, key: int, size: int) -> None:
        def release(_: object) -> None:
            del self._seen[key]
            self.alive -= size

        self._seen[key] = weakref.ref(storage, release)
        self.alive += size
        self.peak = max(self.peak, self.alive)


def measure(work: Callable[[], Any]) -> Cost:
    """Do the work and count, with attention as CUDA's memory-efficient kernel does it."""
    before = F.scaled_dot_product_attention
    # On the meta device torch's own would keep every weight. A torch function mode would not reach recomputation.
    F.scaled_dot_product_attention = _fused_attention  # type: ignore[assignment]
    try:
        with Meter() as meter:
            work()
    finally:
        F.scaled_dot_product_attention = before
    return Cost(meter.flops, meter.peak)


def _fused_attention(q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0, **rest: Any) -> Any:
    bias = None if attn_mask is None else attn_mask.expand(*q.shape[:3], k.shape[2])
    attend, causal = torch.ops.aten._scaled_dot_product_efficient_attention, rest.get("is_causal", False)
    return attend(q, k, v, bias, True, dropout_p, causal, scale=rest.get("scale"))[0]
