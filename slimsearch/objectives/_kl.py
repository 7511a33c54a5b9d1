"""How far a model is from saying what the dense model says: mean KL(dense || pruned)."""

from collections.abc import Sequence

import torch

from slimsearch.model.batch import IGNORED, Batch
from slimsearch.model.vlm import VLM
from slimsearch.teaching import said
from slimsearch.teaching.said import Said


class Divergence:
    """What the dense model said at the targets of some shares of the calibration."""

    def __init__(self) -> None:
        self._said: dict[float, Said] = {}

    def prepare(self, dense: VLM, batches: Sequence[Batch], share: float) -> None:
        parts = [said.heard(dense, batch, batch.targets != IGNORED) for batch in batches]
        self._said[share] = said.together(parts) if parts else Said(torch.empty(0), torch.empty(0))

    @torch.no_grad()
    def mean(self, vlm: VLM, batches: Sequence[Batch], share: float) -> float:
        """Per target, in the order in which they were heard; the batches may be smaller by now."""
        total, read = 0.0, 0
        for batch in batches:
            where = batch.targets != IGNORED
            here = self._said[share].part(read, read + int(where.sum()))
            total += said.divergence(vlm, batch, where, here).sum().item()
            read += len(here)
        return total / max(read, 1)
