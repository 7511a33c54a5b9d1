"""A model larger than memory: one decoder block is held at a time and read from disk when its turn
comes. What is held beside it: embeddings, vision tower, projector, head.

Every block is there from the start, as the model's own code makes it, but without room for weights.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from slimsearch import loading
from slimsearch.checkpoint import Checkpoint
from slimsearch.vlm import VLM

M_MMAP_THRESHOLD = -3  # of mallopt, in glibc's malloc.h


class StreamedBlocks:
    """Looks like the model's blocks; `blocks[3]` reads block 3 and lets go of what was held."""

    def __init__(self, skeleton: VLM):
        self._vlm, self._held = skeleton, 0
        self._blocks: nn.ModuleList = skeleton.decoder.layers

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> nn.Module:
        if index != self._held:
            self._blocks[self._held].to("meta")
            self._read(index)
        return self._blocks[index]

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[index] for index in range(len(self)))

    @torch.no_grad()
    def _read(self, index: int) -> None:
        block = self._blocks[index].to_empty(device=self._vlm.device)
        weights = {
            self._vlm.disk_name(f"{self._vlm.block_path(index)}.{name}"): weight
            for name, weight in block.named_parameters()
        }
        for key, tensor in self._vlm.checkpoint.read(weights):
            weights[key].copy_(tensor)
        loading.check_finite(self._vlm.checkpoint, weights.items())
        self._held = index


def load(checkpoint: Checkpoint, device: str, dtype: str) -> VLM:
    """The model with its blocks on disk. For walking, not for a forward pass of the whole."""
    _give_back_what_is_freed()
    skeleton = loading.load(checkpoint, device, dtype, blocks=1)
    decoder = skeleton.decoder
    _add_blocks(decoder, loading.config_of(checkpoint).get_text_config().num_hidden_layers)
    streamed = StreamedBlocks(skeleton)
    vlm = VLM(skeleton.model, skeleton.architecture, skeleton.stages, checkpoint, streamed)
    loading.follow_route(vlm)
    return vlm


def _give_back_what_is_freed() -> None:
    """Has tensors of 1 MiB and more returned to the system when they are freed. glibc would keep
    most in its heap, where gaps between what is in use add up from block to block."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)


def _add_blocks(decoder: Any, count: int) -> None:
    """Gives a decoder that was loaded with its first block all the others, without weights."""
    first: Any = decoder.layers[0]
    dtype = next(first.parameters()).dtype
    decoder.config.num_hidden_layers = count
    with torch.device("meta"):
        for index in range(1, count):
            block = type(first)(decoder.config, layer_idx=index)
            decoder.layers.append(block.to(dtype).eval().requires_grad_(False))
