"""A model larger than memory: one decoder block is held at a time and read from disk when its turn
comes. What is held beside it: embeddings, vision tower, projector, head.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import suppress

from torch import nn

from slimsearch.model import skeleton
from slimsearch.model.checkpoint import Checkpoint
from slimsearch.model.vlm import VLM

M_MMAP_THRESHOLD = -3  # of mallopt, in glibc's malloc.h


class StreamedBlocks:
    """Looks like the model's blocks; `blocks[3]` reads block 3 and lets go of what was held."""

    def __init__(self, vlm: VLM):
        self._vlm, self._held = vlm, 0
        self._blocks: nn.ModuleList = vlm.decoder.layers

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> nn.Module:
        if index != self._held:
            self._blocks[self._held].to("meta")
            block = self._blocks[index].to_empty(device=self._vlm.device)
            skeleton.read(self._vlm, index, dict(block.named_parameters()))
            self._held = index
        return self._blocks[index]

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[index] for index in range(len(self)))


def load(checkpoint: Checkpoint, device: str, dtype: str, attention: str = "auto") -> VLM:
    """The model with its blocks on disk. For walking, not for a forward pass of the whole."""
    _give_back_what_is_freed()
    found = skeleton.load(checkpoint, device, dtype, attention)
    return skeleton.with_blocks(found, StreamedBlocks(found))


def _give_back_what_is_freed() -> None:
    """Has tensors of 1 MiB and more returned to the system when they are freed. glibc would keep
    most in its heap, where gaps between what is in use add up from block to block."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)
