"""Removes, in every row, what several calibration sets together need least: one mask for all.

The task-agnostic mask of "Skipping Computations in Multimodal LLMs": Wanda's scores, pooled over
the sets. Each set's input norms count in proportion to their root mean square, so that neither a
long set nor a loud one outvotes the others. Nothing is mended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from slimsearch.contracts import Pruned, Solver
from slimsearch.surgery.hessian import Hessian
from slimsearch.surgery.masks import groups, lowest_of_groups, lowest_per_row, without


@dataclass(frozen=True)
class AlphaSubnet(Solver):
    by_set: ClassVar[bool] = True
    mends: ClassVar[bool] = False
    keep: str = ""  # "2:4" keeps two of every four neighbours in a row

    def prune(self, weights: Tensor, hessian: Hessian, levels: Sequence[float]) -> list[Pruned]:
        keep = groups(self.keep, weights.shape[1], levels)
        scores = weights.float().abs() * _pooled_norms(hessian)
        if keep:
            masks = [lowest_of_groups(scores, keep)] * len(levels)
        else:
            masks = lowest_per_row(scores, [round(level * weights.numel()) for level in levels])
        return [without(weights, mask, hessian) for mask in masks]


def _pooled_norms(hessian: Hessian) -> Tensor:
    """The mean over sets of ||X_j|| / sqrt(mean over columns of ||X_j||^2), [columns]."""
    diagonals = list(hessian.parts.values()) or [hessian.matrix.diagonal().clamp(min=0)]
    alive = [diagonal for diagonal in diagonals if bool(diagonal.any())]
    if not alive:
        return torch.zeros_like(diagonals[0])
    return torch.stack([(diagonal / diagonal.mean()).sqrt() for diagonal in alive]).mean(0)
