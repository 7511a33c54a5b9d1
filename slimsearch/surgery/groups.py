"""Whole attention heads and FFN channels: what they are worth, and a decoder without some of them.

As in LLM-Pruner: weights that only make sense together go together, and what a group is worth is
the loss's first-order change without it, the sum of |weight x gradient| over its weights. A group
is a head of keys with its values and every query head that reads it, or one channel of the FFN.
Every block loses equally many, so that the configuration can say how many are left, and only so
many that transformers takes such a configuration: some families want heads that divide the width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slimsearch.errors import ModelError
from slimsearch.model.batch import Batch
from slimsearch.model.vlm import VLM

READING = ("q", "k", "v", "gate", "up")  # matrices that lose rows; the others lose columns
FFN = ("gate", "up", "down")
TOKENS = 1024  # a backward pass holds every block's activations


@dataclass(frozen=True)
class Kept:
    """Of each block, the heads of keys and the channels that stay, in order."""

    heads: tuple[Tensor, ...]
    channels: tuple[Tensor, ...]


def check(vlm: VLM) -> None:
    """Refuses a decoder whose matrices hold several things at once, or heads that must fill it."""
    roles = {role for stage in vlm.stages for role in stage}
    text = vlm.model.config.get_text_config()
    if not roles <= {*READING, "o", "down"} or not hasattr(text, "num_key_value_heads"):
        raise ModelError(
            f"{vlm.checkpoint.folder}: heads of a '{text.model_type}' cannot go: its configuration "
            f"has no number of its own for them, or one matrix holds several parts. "
            f"--solver prunes single weights of every model."
        )


def heads_left(vlm: VLM, ratio: float) -> tuple[int, int]:
    """How many heads of keys stay in each block where `ratio` of them go, and of those numbers
    that transformers takes the nearest."""
    asked = _left(_key_heads(vlm), ratio)
    known = [count for count in range(1, _key_heads(vlm) + 1) if _taken(vlm, count)]
    return asked, min(known or [asked], key=lambda count: (abs(count - asked), -count))


def worth(vlm: VLM, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """By matrix, the sum of |weight x gradient| of each row or column that can go, over batches."""
    found: dict[str, Tensor] = {}
    with _collecting(vlm, found):
        for batch in batches:
            for rows in batch.split(max(1, TOKENS // batch.ids.shape[1])):
                with torch.enable_grad():
                    vlm.loss(rows).backward()
    return found


def choose(vlm: VLM, found: Mapping[str, Tensor], ratio: float) -> Kept:
    """The most worthy heads and channels of each block; `ratio` of them go, one stays at least.

    Where more or fewer heads have to stay, channels make up for it.
    """
    asked, count = heads_left(vlm, ratio)
    more = (count - asked) * _channels_of_a_head(vlm)
    heads, channels = [], []
    for block in range(len(vlm.blocks)):
        by_head = torch.stack(
            [found[f"blocks.{block}.{role}"].view(_key_heads(vlm), -1).sum(1) for role in "qkvo"]
        ).sum(0)
        by_channel = torch.stack(
            [found[name] for role in FFN if (name := f"blocks.{block}.{role}") in found]
        ).sum(0)
        heads.append(_best(by_head, count))
        left = _left(len(by_channel), ratio) - round(more)
        channels.append(_best(by_channel, min(max(left, 1), len(by_channel))))
    return Kept(tuple(heads), tuple(channels))


@torch.no_grad()
def narrow(vlm: VLM, kept: Kept) -> None:
    """Leaves the decoder with what is kept: smaller matrices, and a configuration that says so."""
    text: Any = vlm.model.config.get_text_config()
    width = _head_width(text)
    for name in (matrix.name for matrix in vlm.matrices):
        _, block, role = name.split(".")
        index = kept.channels[int(block)]
        if role not in FFN:
            together = vlm.linear(name).weight.shape[role == "o"] // _key_heads(vlm)
            index = _spread(kept.heads[int(block)], together)
        _shrink(vlm.linear(name), index, rows=role in READING)
    text.head_dim = width
    _count_heads(text, len(kept.heads[0]))
    text.intermediate_size = len(kept.channels[0])


@contextmanager
def _collecting(vlm: VLM, found: dict[str, Tensor]) -> Iterator[None]:
    """Adds up what each matrix's gradient says and forgets the gradient at once."""
    hooks, weights = [], []
    for matrix in vlm.matrices:
        weight = vlm.linear(matrix.name).weight
        along = 1 if matrix.name.rpartition(".")[2] in READING else 0

        def collect(given: Tensor, name: str = matrix.name, along: int = along) -> None:
            assert given.grad is not None
            power = (given.detach().float() * given.grad.float()).abs().sum(along)
            found[name] = found[name] + power if name in found else power
            given.grad = None

        weight.requires_grad_(True)
        weights.append(weight)
        hooks.append(weight.register_post_accumulate_grad_hook(collect))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for weight in weights:
            weight.requires_grad_(False)


def _left(count: int, ratio: float) -> int:
    return max(1, round(count * (1 - ratio)))


def _channels_of_a_head(vlm: VLM) -> float:
    """How many channels have as many weights as a head of keys with its queries."""
    first = [matrix for matrix in vlm.matrices if matrix.block == "blocks.0"]
    ffn = sum(matrix.size for matrix in first if matrix.name.rpartition(".")[2] in FFN)
    head = (sum(matrix.size for matrix in first) - ffn) / _key_heads(vlm)
    return head * vlm.linear("blocks.0.down").in_features / ffn


def _taken(vlm: VLM, key_heads: int) -> bool:
    """Whether transformers takes a configuration of so many heads of keys."""
    text: Any = copy(vlm.model.config.get_text_config())
    _count_heads(text, key_heads)
    try:
        text.validate()
    except Exception:  # huggingface_hub's own kinds, around whatever a family's check raises
        return False
    return True


def _count_heads(text: Any, key_heads: int) -> None:
    """Writes into a configuration how many heads of keys there are, and of queries with them."""
    grouped = text.num_attention_heads // text.num_key_value_heads
    text.num_key_value_heads = key_heads
    text.num_attention_heads = grouped * key_heads


def _best(worths: Tensor, count: int) -> Tensor:
    return worths.topk(count).indices.sort().values


def _spread(heads: Tensor, width: int) -> Tensor:
    """The rows of some heads, each so many wide."""
    return (heads[:, None] * width + torch.arange(width, device=heads.device)).flatten()


def _shrink(layer: nn.Linear, index: Tensor, *, rows: bool) -> None:
    layer.weight = nn.Parameter(layer.weight.index_select(0 if rows else 1, index), False)
    if rows and layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias[index], False)
    layer.out_features, layer.in_features = layer.weight.shape


def _key_heads(vlm: VLM) -> int:
    return vlm.model.config.get_text_config().num_key_value_heads


def _head_width(text: Any) -> int:
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
