"""Removes the smallest weights of a matrix, whatever the inputs: the plainest baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from slimsearch.contracts import Pruned, Solver
from slimsearch.surgery.hessian import Hessian
from slimsearch.surgery.masks import groups, lowest, lowest_of_groups, without


@dataclass(frozen=True)
class Magnitude(Solver):
    mends: ClassVar[bool] = False
    keep: str = ""  # "2:4" keeps two of every four neighbours in a row

    def prune(self, weights: Tensor, hessian: Hessian, levels: Sequence[float]) -> list[Pruned]:
        keep = groups(self.keep, weights.shape[1], levels)
        scores = weights.float().abs()
        counts = [round(level * weights.numel()) for level in levels]
        masks = [lowest_of_groups(scores, keep) if keep else lowest(scores, n) for n in counts]
        return [without(weights, mask, hessian) for mask in masks]
