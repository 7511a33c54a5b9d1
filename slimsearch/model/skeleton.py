"""A model whose decoder blocks are all there, as its own code makes them, without room for weights.

What stands beside the blocks is whole: embeddings, vision tower, projector, head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from slimsearch.model import loading
from slimsearch.model.checkpoint import Checkpoint
from slimsearch.model.vlm import VLM, Blocks


def load(checkpoint: Checkpoint, device: str, dtype: str, attention: str) -> VLM:
    """The skeleton; its first block alone has its weights."""
    skeleton = loading.load(checkpoint, device, dtype, attention, blocks=1)
    _add_blocks(skeleton.decoder, loading.block_count(checkpoint))
    return skeleton


def with_blocks(skeleton: VLM, blocks: Blocks) -> VLM:
    """The same model, its blocks reached through these, run as its folder says."""
    found = VLM(skeleton.model, skeleton.architecture, skeleton.stages, skeleton.checkpoint, blocks)
    loading.follow_route(found)
    return found


@torch.no_grad()
def read(vlm: VLM, index: int, weights: Mapping[str, nn.Parameter]) -> None:
    """Fills the weights of a block, by their names within it, from disk."""
    path = vlm.block_path(index)
    wanted = {vlm.disk_name(f"{path}.{name}"): weight for name, weight in weights.items()}
    for key, tensor in vlm.checkpoint.read(wanted):
        wanted[key].copy_(tensor)
    loading.check_finite(vlm.checkpoint, wanted.items())


def _add_blocks(decoder: Any, count: int) -> None:
    """Gives a decoder that was loaded with its first block all the others."""
    first: Any = decoder.layers[0]
    dtype = next(first.parameters()).dtype
    decoder.config.num_hidden_layers = count
    with torch.device("meta"):
        for index in range(1, count):
            block = type(first)(decoder.config, layer_idx=index)
            decoder.layers.append(block.to(dtype).eval().requires_grad_(False))
