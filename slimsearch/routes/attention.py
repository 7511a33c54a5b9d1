"""Attention over tokens of which some are missing, or see less: exact, and never n x n where cut.

transformers calls `attend` in place of its own attention, with queries, keys and values after
projection, rotation and cache. Its masks are not made: `pattern` keeps the rule that they follow,
which is asked about those tokens only that are there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimsearch.routes.passage import Sees, View
from slimsearch.routes.subset import Subset

NAME = "slimsearch"  # under which transformers knows it
STRETCH = 32  # pictures' tokens whose windows are looked at together, or a window's where wider


def register() -> None:
    """Makes it known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, pattern)


def pattern(batch_size: int, q_length: int, mask_function: Sees, **told: Any) -> Tensor:
    """In place of a mask: an empty one that carries its rule."""
    mask = torch.empty(batch_size, 1, q_length, 0, device=told.get("device"))
    mask.rule = mask_function  # type: ignore[attr-defined]
    return mask


def seen_by(view: View) -> Tensor:
    """In place of a block's mask: an empty one that carries what its tokens see."""
    mask = torch.empty(len(view.asking), 1, view.asking.shape[1], 0, device=view.asking.device)
    mask.view_of = view  # type: ignore[attr-defined]
    return mask


def rule_of(mask: Tensor) -> tuple[Sees, bool]:
    """The rule of a mask, and whether it is the plain causal one; a mask that was made already,
    [rows or 1, 1, asking, there], is its own rule."""
    from transformers.masking_utils import causal_mask_function

    rule: Sees | None = getattr(mask, "rule", None)
    if rule is not None:
        return rule, rule is causal_mask_function
    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return lambda row, _, ask, there: seen[row.clamp(max=len(seen) - 1), 0, ask, there], False


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Queries [rows, heads, asking, width], keys and values [rows, key heads, there, width]; what
    comes of them [rows, asking, heads, width]."""
    view: View = attention_mask.view_of  # type: ignore[attr-defined]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling

    def some(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, causal: bool):
        return _softmax(query, key, value, allowed, causal, scale, softcap)

    pictures = view.pictured[:, view.before :]
    if view.window is None or not bool(pictures.any()):
        whole = view.causal and view.before == 0
        allowed = None if whole else view.allowed(view.asking, view.there)
        made = some(query, key, value, allowed, whole)
    else:
        made = _cut(query, key, value, view, view.window, some)
    return made.transpose(1, 2).contiguous(), None


Some = Callable[[Tensor, Tensor, Tensor, Tensor | None, bool], Tensor]


def _cut(query: Tensor, key: Tensor, value: Tensor, view: View, window: int, some: Some) -> Tensor:
    """Pictures' tokens see themselves and a few of their kind before, all others everything."""
    made = _for_heads(value[:, :, view.before :], query)  # one that sees only itself gets its value
    pictures = view.pictured[:, view.before :]
    others = Subset.where(~pictures & (view.asking >= 0))
    if others.count:
        asking = torch.where(others.real, others.take(view.asking), -1)
        allowed = view.allowed(asking, view.there)
        seen = some(others.take(query, 2), key, value, allowed, False)
        made = others.put(made, seen, 2)
    if window:
        made = _banded(query, key, value, view, window, some, made)
    return made


def _banded(
    query: Tensor, key: Tensor, value: Tensor, view: View, window: int, some: Some, made: Tensor
) -> Tensor:
    """Each picture's token over itself and `window` before it, a stretch of tokens at a time: each
    is held against those of its stretch and a window more."""
    keys, asking = Subset.where(view.pictured), Subset.where(view.pictured[:, view.before :])
    earlier = view.pictured[:, : view.before].sum(1, keepdim=True)
    ranks = torch.arange(asking.count, device=query.device) + earlier  # among pictures' tokens
    key, value = keys.take(key, 2), keys.take(value, 2)
    query = asking.take(query, 2)
    ask = torch.where(asking.real, asking.take(view.asking), -1)
    there = torch.where(keys.real, keys.take(view.there), -1)
    low, high = int(earlier.min()), int(earlier.max())
    stretches, length = [], max(STRETCH, window)
    for start in range(0, asking.count, length):
        stop = min(start + length, asking.count)
        near = slice(max(start + low - window, 0), min(stop + high, keys.count))
        places = torch.arange(near.start, near.stop, device=query.device)
        back = ranks[:, start:stop, None] - places  # [rows, asking, there]
        allowed = ((back >= 0) & (back <= window))[:, None]
        by_rule = view.allowed(ask[:, start:stop], there[:, near])
        filled = (ask[:, start:stop] < 0)[:, None, :, None]
        allowed = (allowed if by_rule is None else allowed & by_rule) | filled
        stretches.append(
            some(query[:, :, start:stop], key[:, :, near], value[:, :, near], allowed, False)
        )
    return asking.put(made, torch.cat(stretches, 2), 2)


def _softmax(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor | None,
    causal: bool,
    scale: float,
    softcap: float | None,
) -> Tensor:
    """Ordinary attention; the scores stand in memory only where they are capped."""
    if softcap is None:
        key, value = _for_heads(key, query), _for_heads(value, query)
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=allowed, is_causal=causal and query.shape[2] > 1,
            scale=scale,
        )  # fmt: skip
    scores = query @ _for_heads(key, query).transpose(2, 3) * scale
    scores = (scores / softcap).tanh() * softcap
    if causal:
        behind = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
        allowed = behind if allowed is None else allowed & behind
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    return scores.softmax(-1, dtype=torch.float32).to(query.dtype) @ _for_heads(value, query)


def _for_heads(keys: Tensor, query: Tensor) -> Tensor:
    """Keys or values for each head of the queries."""
    return keys.repeat_interleave(query.shape[1] // keys.shape[1], 1)
