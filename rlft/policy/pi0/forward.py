"""π0's two towers run apart: the prefix once per observation, the action expert once per denoise step.

Both passes go through lerobot's modules and weights and equal its joint forward; what differs is what is not computed.

Shapes::

    n rows of x (noisy chunks)      m rows of the prefix, n = m * r: r chunks (denoise steps, noises) look at one
    N prefix tokens                 S suffix tokens: the H steps, after π0's one of the state
    L layers    h key heads         G query heads to a key head    c width of a head    w width of a tower

A ``backbone`` is lerobot's ``PaliGemmaWithExpertModel``, a ``tower`` one of its ``PiGemmaModel``, a ``model``
``PI0Pytorch`` or ``PI05Pytorch``. A ``mask`` is bool and False on padding; ``recompute`` computes activations again in
the backward pass. RoPE's ``angles`` are cosines and sines, ``[n, S or N, 1, c / 2]`` each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody knows
from lerobot.policies.pi0.modeling_pi0 import create_sinusoidal_pos_embedding
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def embed_prefix(backbone: Any, images: Tensor, tokens: Tensor, *, recompute: bool = False) -> Tensor:
    """Embed images, uint8 ``[n, V, 3, side, side]``, and int64 ``tokens [n, L]``: ``[n, N, w]``, patches first."""
    language = backbone.embed_language_tokens(tokens)
    n, cameras = images.shape[:2]
    if cameras == 0:
        return language
    pixels = images.flatten(0, 1).float().div_(127.5).sub_(1.0)  # all cameras go through SigLIP together
    vision = _maybe_checkpoint(recompute, backbone.embed_image, pixels)
    return torch.cat([vision.view(n, -1, vision.shape[-1]), language], dim=1)


def embed_suffix(model: Any, state: Tensor | None, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
    """Embed the noisy chunk ``[n, H, D]`` and its time ``[n]``, by the model's own layers; all is float32.

    ``state`` is ``[n, state width]``, normalised (π0); None: the prefix tells it (π0.5).

    Returns:
        ``[n, S, w]``; and the AdaRMS condition ``[n, w]`` of π0.5, or None.
    """
    # lerobot's method of this name also makes masks, one of them from a Python list: a copy for which the host would
    # wait in every denoise step. They are not used here, see suffix_context.
    periods, actions = (model.config.min_period, model.config.max_period), model.action_in_proj(x)
    time = create_sinusoidal_pos_embedding(t, model.action_in_proj.out_features, *periods, t.device).type(t.dtype)
    if state is None:
        return actions, F.silu(model.time_mlp_out(F.silu(model.time_mlp_in(time))))
    both = torch.cat([actions, time[:, None].expand_as(actions)], dim=2)
    chunk = model.action_time_mlp_out(F.silu(model.action_time_mlp_in(both)))
    return torch.cat([model.state_proj(state)[:, None], chunk], dim=1), None


def prefix_kv(tower: Any, embeds: Tensor, mask: Tensor, *, recompute: bool = False) -> Tensor:
    """Keys and values of every layer of the language tower, ``[n, L, 2, h, N, c]``.

    Attention is bidirectional over the unpadded tokens. Padded rows come out as garbage that no one reads. ``embeds``
    are ``[n, N, w]``, and ``mask`` is ``[n, N]``.
    """
    x = embeds.to(tower.layers[0].self_attn.q_proj.weight.dtype)
    angles = _rope_angles(tower, torch.cumsum(mask, dim=1) - 1, x.dtype)  # positions count unpadded tokens alone
    bias = None if _unpadded(mask) else _bias(mask, x.dtype)[:, None, None]  # [n, 1, 1, N]
    packed = []
    *layers, last = tower.layers
    for layer in layers:
        x, kv = _maybe_checkpoint(recompute, _prefix_layer, layer, x, angles, bias)
        packed.append(kv)
    # Nobody reads what the last layer would make of the prefix: its keys and values are all that the expert asks for.
    normed, _ = last.input_layernorm(x)
    packed.append(_keys_values(last.self_attn, normed, angles))
    return torch.stack(packed, dim=1)


@dataclass(frozen=True)
class SuffixContext:
    """What every denoise step over the same prefixes shares."""

    angles: tuple[Tensor, Tensor]  # `[n, S, 1, c / 2]` each
    bias: Tensor  # `[m or 1, 1, r * S * G, N + r * S]`, what each suffix token may see


def suffix_context(tower: Any, mask: Tensor, *, rows: int, suffix: int, lone_first: bool) -> SuffixContext:
    """Positions and visibility of the suffix tokens: each of the r ``rows`` sees the prefix and its own suffix of S.

    ``mask`` is ``[m, N]``, the prefix's. With ``lone_first`` the first token (π0's state) sees the prefix and itself
    only.
    """
    attention = tower.layers[0].self_attn
    dtype = attention.q_proj.weight.dtype
    positions = mask.sum(dim=1, keepdim=True) + torch.arange(suffix, device=mask.device)  # [m, S], after the prefix
    cos, sin = (a.repeat_interleave(rows, dim=0) for a in _rope_angles(tower, positions, dtype))
    own = torch.ones(suffix, suffix, dtype=torch.bool, device=mask.device)
    if lone_first:
        own[0, 1:] = False
    # [r * S * G, r * S]: a block per chunk on the diagonal, a row per query head of a key head (see _queries).
    own = torch.block_diag(*[own] * rows).bool().repeat_interleave(attention.num_key_value_groups, dim=0)
    if _unpadded(mask):  # the usual case: one bias for all prefixes
        mask = mask[:1]
    prefix = mask[:, None].expand(-1, len(own), -1)
    bias = _bias(torch.cat([prefix, own.expand(len(mask), -1, -1)], dim=2), dtype)[:, None]
    return SuffixContext((cos, sin), bias)


def expert_layers(
    tower: Any, x: Tensor, angles: tuple[Tensor, Tensor], bias: Tensor, kv: Tensor, cond: Tensor | None, recompute: bool
) -> Tensor:
    """Run the action expert over the suffix tokens, reading the prefix's keys and values; gives ``[n, S, w]``, normed.

    Args:
        tower: the expert's.
        x: ``[n, S, w]``, the embedded suffix.
        angles: of the :class:`SuffixContext` of these prefixes, with ``r = n / m``.
        bias: likewise.
        kv: ``[m, L, 2, h, N, c]``, of any float type; suffix row i reads prefix row ``i // r``.
        cond: AdaRMS condition ``[n, w]`` (π0.5), or None.
        recompute: see above.
    """
    x = x.to(tower.layers[0].self_attn.q_proj.weight.dtype)
    for index, layer in enumerate(tower.layers):
        x = _maybe_checkpoint(recompute, _expert_layer, layer, x, angles, bias, kv[:, index, 0], kv[:, index, 1], cond)
    return tower.norm(x, cond)[0]


def dead_parameters(backbone: Any) -> set[int]:
    """The ids of parameters that no action depends on: language heads, and the prefix's last layer beyond its keys."""
    language = backbone.paligemma.model.language_model
    last = language.layers[-1]
    unused = [backbone.paligemma.lm_head, backbone.gemma_expert.lm_head, language.norm]
    unused += [last.self_attn.q_proj, last.self_attn.o_proj, last.post_attention_layernorm, last.mlp]
    return {id(parameter) for module in unused for parameter in module.parameters()}


def _prefix_layer(layer: Any, x: Tensor, angles: tuple[Tensor, Tensor], bias: Tensor) -> tuple[Tensor, Tensor]:
    normed, gate = layer.input_layernorm(x)
    attention = layer.self_attn
    kv = _keys_values(attention, normed, angles)
    q = _queries(attention, normed, angles, rows=1)
    seen = F.scaled_dot_product_attention(q, kv[:, 0], kv[:, 1], attn_mask=bias, scale=attention.scaling)
    return _finish(layer, x, seen, gate, None), kv


def _expert_layer(
    layer: Any, x: Tensor, angles: tuple[Tensor, Tensor], bias: Tensor, key: Tensor, value: Tensor, cond: Tensor | None
) -> Tensor:
    """One layer; x ``[n, S, w]``, key and value ``[m, h, N, c]`` of the prefix."""
    normed, gate = layer.input_layernorm(x, cond)
    attention = layer.self_attn
    m, heads, _, head_dim = key.shape
    rows = len(x) // m
    q = _queries(attention, normed, angles, rows=rows)
    # [m * r, 2, h, S, c] -> [m, h, 2, r * S, c]: the keys of all chunks of an observation in one row
    own = _keys_values(attention, normed, angles).view(m, rows, 2, heads, -1, head_dim).transpose(1, 3).flatten(3, 4)
    # The r chunks of one observation are further queries to one set of keys, each masked to its own suffix: the prefix
    # is not repeated r times. It is copied once, though, beside the suffix's own keys, in every layer of every step,
    # and autograd keeps that copy: attention's kernels take their keys as one tensor.
    key, value = torch.cat([key.to(q.dtype), own[:, :, 0]], dim=2), torch.cat([value.to(q.dtype), own[:, :, 1]], dim=2)
    seen = F.scaled_dot_product_attention(q, key, value, attn_mask=bias, scale=attention.scaling)
    return _finish(layer, x, seen, gate, cond)


def _queries(attention: Any, x: Tensor, angles: tuple[Tensor, Tensor], *, rows: int) -> Tensor:
    """Queries ``[m, h, r * S * G, c]``."""
    q = _rotate(attention.q_proj(x).unflatten(-1, (-1, attention.head_dim)), angles)
    n, length, heads, head_dim = q.shape
    groups = attention.num_key_value_groups
    # The G query heads of a key head are rows of one query, side by side: any attention kernel will do, also those
    # that know nothing of grouped queries, and no key is repeated for them.
    q = q.view(n // rows, rows, length, heads // groups, groups, head_dim).permute(0, 3, 1, 2, 4, 5)
    return q.reshape(n // rows, heads // groups, rows * length * groups, head_dim)


def _keys_values(attention: Any, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Keys after RoPE, and values: ``[n, 2, h, S or N, c]``."""
    key = _rotate(attention.k_proj(x).unflatten(-1, (-1, attention.head_dim)), angles)
    value = attention.v_proj(x).unflatten(-1, (-1, attention.head_dim))
    return torch.stack([key, value], dim=1).transpose(2, 3)


def _finish(layer: Any, x: Tensor, seen: Tensor, gate: Tensor | None, cond: Tensor | None) -> Tensor:
    """Output projection, first residual, feed-forward block, second residual."""
    m, heads, _, head_dim = seen.shape
    n, length, _ = x.shape
    # [m, h, r * S * G, c] -> [n, S, h * G * c]: back from _queries' layout to the order of the projection's weights
    seen = seen.view(m, heads, n // m, length, -1, head_dim).permute(0, 2, 3, 1, 4, 5).reshape(n, length, -1)
    x = _residual(x, layer.self_attn.o_proj(seen), gate)
    normed, gate = layer.post_attention_layernorm(x, cond)
    return _residual(x, layer.mlp(normed), gate)


def _residual(x: Tensor, y: Tensor, gate: Tensor | None) -> Tensor:
    return x + y if gate is None else x + y * gate


def _unpadded(mask: Tensor) -> bool:
    # Whether nothing is masked, asked only where the answer is at hand. A GPU would have to be waited for, and whether
    # a batch happens to need no mask would choose its kernel: rollout and update, whose batches differ, would round
    # differently. There, masks are always applied.
    return mask.is_cpu and bool(mask.all())


def _bias(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Added to scores: 0 where visible, else the most negative number; finite, lest a row without keys be NaN."""
    # Rows begin at multiples of 8 numbers: CUDA's memory-efficient kernel copies any other bias, in every layer.
    *rows, width = visible.shape
    bias = torch.zeros(*rows, -(-width // 8) * 8, dtype=dtype, device=visible.device)[..., :width]
    return bias.masked_fill_(~visible, torch.finfo(dtype).min)


def _rope_angles(tower: Any, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines in float32 arithmetic, cast to the tower's type."""
    angles = (positions[..., None].float() * tower.rotary_emb.inv_freq.float())[:, :, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding of ``[n, S, heads, c]``; halves are paired, as in Gemma."""
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _maybe_checkpoint(recompute: bool, function: Callable[..., Any], *args: Any) -> Any:
    if recompute and torch.is_grad_enabled():
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
    return function(*args)
