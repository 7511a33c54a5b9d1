"""Removes weights by lot: what any other solver must beat.

A pure function of the seed and the shape; a higher level also removes what a lower one does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar

import torch
from torch import Tensor

from slimsearch.contracts import Pruned, Solver
from slimsearch.surgery.hessian import Hessian
from slimsearch.surgery.masks import groups, lowest, lowest_of_groups, without


@dataclass(frozen=True)
class Random(Solver):
    mends: ClassVar[bool] = False
    seed: int = 0
    keep: str = ""  # "2:4" keeps two of every four neighbours in a row

    def prune(self, weights: Tensor, hessian: Hessian, levels: Sequence[float]) -> list[Pruned]:
        keep = groups(self.keep, weights.shape[1], levels)
        scores = _scores(self.seed, *weights.shape).to(weights.device)
        counts = [round(level * weights.numel()) for level in levels]
        masks = [lowest_of_groups(scores, keep) if keep else lowest(scores, n) for n in counts]
        return [without(weights, mask, hessian) for mask in masks]


def _scores(seed: int, rows: int, columns: int) -> Tensor:
    digest = sha256(f"{seed} {rows} {columns}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(rows, columns, generator=generator)
