"""PruMerge: a picture's outstanding tokens stay, and each of the others is merged into one of them.

What stands out is what the vision tower's class token attends to beyond the upper quartile by so
many interquartile ranges. Every other token joins the one whose key is most like its own, and the
tokens of such a group are averaged, weighed by that attention. PruMerge+ also keeps tokens that are
spread evenly over the picture, so many times as many as stand out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimsearch.routes.route import Merge

FAINT = 1e-30  # what counts as some attention, so that a group without any is averaged evenly
CLASS = "class_embedding"  # of a tower that has a class token, as CLIP's


@dataclass(frozen=True)
class Salience:
    """What merging asks of the tower: for each piece of a picture, [pieces, tokens, ...]."""

    attention: Tensor  # the class token's, over the others
    keys: Tensor  # [pieces, tokens, width]

    def to(self, device: torch.device) -> Salience:
        return Salience(self.attention.to(device), self.keys.to(device))

    def rows(self, some: slice) -> Salience:
        return Salience(self.attention[some], self.keys[some])


def attention_in(tower: nn.Module, config: Any) -> nn.Module | None:
    """The self-attention of the block whose output is projected; None without a class token."""
    if not any(name.endswith(CLASS) for name, _ in tower.named_parameters()):
        return None
    layer = getattr(config, "vision_feature_layer", None)
    layer = getattr(config, "vision_feature_layers", None) if layer is None else layer
    blocks = next(
        (part for part in tower.modules() if isinstance(part, nn.ModuleList) and len(part) > 1),
        None,
    )
    if layer is None or blocks is None:
        return None
    count = len(blocks)
    places = [layer] if isinstance(layer, int) else list(layer)
    deepest = max(place if place >= 0 else count + 1 + place for place in places)
    found: Any = blocks[max(deepest - 1, 0)]
    return found.self_attn


@torch.no_grad()
def salience(queries: Tensor, keys: Tensor, heads: int) -> Salience:
    """From the projections of a class token and all others, [pieces, 1 + tokens, width]."""

    def apart(joined: Tensor) -> Tensor:
        return joined.unflatten(-1, (heads, -1)).transpose(1, 2).float()

    asked, there = apart(queries)[:, :, :1], apart(keys)
    scores = asked @ there.transpose(2, 3) * there.shape[-1] ** -0.5
    return Salience(scores.softmax(-1).mean(1)[:, 0, 1:], keys[:, 1:])


@torch.no_grad()
def merged(features: Tensor, seen: Salience, how: Merge) -> tuple[Tensor, Tensor]:
    """Features [pieces, tokens, width] in which those that stay stand for their group, and which
    stay, [pieces, tokens]."""
    stay = torch.stack([staying(attention, how) for attention in seen.attention])
    keys = functional.normalize(seen.keys.float(), dim=-1)
    alike = (keys @ keys.transpose(1, 2)).masked_fill(~stay[:, None, :], -2.0)
    own = torch.arange(stay.shape[1], device=stay.device).expand_as(stay)
    joins = torch.where(stay, own, alike.argmax(-1))
    weights = seen.attention.unsqueeze(-1).clamp(min=FAINT)
    index = joins.unsqueeze(-1).expand(features.shape)
    summed = torch.zeros_like(features, dtype=torch.float32)
    summed = summed.scatter_add(1, index, features.float() * weights)
    total = torch.zeros_like(weights).scatter_add(1, joins.unsqueeze(-1), weights)
    found = (summed / total.clamp(min=FAINT)).to(features.dtype)
    return torch.where(stay.unsqueeze(-1), found, features), stay


def share(seen: Sequence[Salience], how: Merge) -> float:
    """Of some pictures' tokens, the share that stays."""
    kept = [staying(attention, how).float().mean() for one in seen for attention in one.attention]
    return float(torch.stack(kept).mean())


def staying(attention: Tensor, how: Merge) -> Tensor:
    """Which of a picture's tokens stay, given what the class token attends to."""
    lower, upper = attention.quantile(torch.tensor([0.25, 0.75], device=attention.device))
    stay = attention > upper + how.keep * (upper - lower)
    stay[attention.argmax()] = True
    if count := how.plus * int(stay.sum()):
        even = torch.linspace(0, len(stay) - 1, min(count, len(stay)), device=stay.device)
        stay[even.round().long()] = True
    return stay
