"""A model larger than memory: one decoder block is held at a time and read from disk when its turn
comes. What is held beside it: embeddings, vision tower, projector, head.

The skeleton is the same model with one block; its weights are exchanged for those of any other.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from slimsearch import loading
from slimsearch.checkpoint import Checkpoint
from slimsearch.vlm import VLM


class StreamedBlocks:
    """Looks like the model's blocks; `blocks[3]` reads block 3 over whichever was there."""

    def __init__(self, skeleton: VLM, count: int):
        self._vlm, self._count, self._held = skeleton, count, 0
        self._block = skeleton.blocks[0]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> nn.Module:
        if index != self._held:
            self._read(index)
        return self._block

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[index] for index in range(self._count))

    @torch.no_grad()
    def _read(self, index: int) -> None:
        prefix = f"{self._vlm.architecture.decoder}.layers.{index}."
        weights = {
            self._vlm.disk_name(prefix + name): weight
            for name, weight in self._block.named_parameters()
        }
        for key, tensor in self._vlm.checkpoint.read(weights):
            weights[key].copy_(tensor)
        loading.check_finite(self._vlm.checkpoint, weights.items())
        self._held = index


def load(checkpoint: Checkpoint, device: str, dtype: str) -> VLM:
    """The model with its blocks on disk. For walking, not for a forward pass of the whole."""
    skeleton = loading.load(checkpoint, device, dtype, blocks=1)
    count = checkpoint.config.get("text_config", checkpoint.config)["num_hidden_layers"]
    blocks = StreamedBlocks(skeleton, count)
    return VLM(skeleton.model, skeleton.architecture, checkpoint, blocks)
