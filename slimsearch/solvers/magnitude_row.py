"""Removes the smallest weights of every output row, the same share of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from slimsearch.contracts import Pruned, Solver
from slimsearch.surgery.hessian import Hessian
from slimsearch.surgery.masks import groups, lowest_of_groups, lowest_per_row, without


@dataclass(frozen=True)
class MagnitudeRow(Solver):
    mends: ClassVar[bool] = False
    keep: str = ""  # "2:4" keeps two of every four neighbours in a row

    def prune(self, weights: Tensor, hessian: Hessian, levels: Sequence[float]) -> list[Pruned]:
        keep = groups(self.keep, weights.shape[1], levels)
        scores = weights.float().abs()
        if keep:
            masks = [lowest_of_groups(scores, keep)] * len(levels)
        else:
            masks = lowest_per_row(scores, [round(level * weights.numel()) for level in levels])
        return [without(weights, mask, hessian) for mask in masks]
