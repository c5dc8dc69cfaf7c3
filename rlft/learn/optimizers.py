"""Optimisers from their settings."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from rlft.config.learning import OptimizerConfig


class MasterAdamW(torch.optim.AdamW):
    """AdamW that keeps parameters of low precision in float32 beside the network.

    A bfloat16 number moves by no less than a 256th of itself, and a usual fine-tuning step is a thousand times smaller:
    without a float32 master such steps are lost, and nothing says so. Gradients of micro-batches are summed in float32
    as well. Parameters that are float32 already are their own masters, and this is plain AdamW.
    """

    masters: list[torch.Tensor]  # the float32 tensors that are stepped, one per parameter; they carry the gradients

    def __init__(self, parameters: Iterable[torch.nn.Parameter], cfg: OptimizerConfig) -> None:
        trained = list(parameters)
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for p in trained]
        self._copies = [(p, m) for p, m in zip(trained, self.masters) if p is not m]
        # fused: one kernel per tensor instead of a dozen passes over its memory
        betas, decay = (cfg.betas[0], cfg.betas[1]), cfg.weight_decay
        super().__init__(self.masters, lr=cfg.lr, betas=betas, eps=cfg.eps, weight_decay=decay, fused=True)

    def collect(self) -> None:
        """Add the gradients of a backward pass to the masters'; to be called after each."""
        for parameter, master in self._copies:
            if parameter.grad is not None:
                gradient = parameter.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                parameter.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, the masters' and the network's."""
        super().zero_grad(set_to_none)
        for parameter, _ in self._copies:
            parameter.grad = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step on the masters; the network takes over their rounded values."""
        result = super().step(closure)
        for parameter, master in self._copies:
            parameter.copy_(master)
        return result

    def state_dict(self) -> dict[str, Any]:
        """AdamW's state, and the masters that differ from the network."""
        return {**super().state_dict(), "masters": [master for _, master in self._copies]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; the network's parameters are loaded with the network."""
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "masters"})
        with torch.no_grad():
            for (_, master), value in zip(self._copies, state_dict["masters"], strict=True):
                master.copy_(value)
