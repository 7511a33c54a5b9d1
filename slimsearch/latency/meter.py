"""Milliseconds of a decoder's parts, for a bill and for the term, from a table of whole passes.

A matrix that fewer tokens meet takes that share of its time; so does the rest of a block
(attention, norms) by the tokens that pass it. What of the rest sparsity saves is matrices' too:
engines compute some of them together with what stands beside them, and call it another name. The
head and what a pass costs by itself stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy import ndarray

from slimsearch.flops import count
from slimsearch.latency.table import Point, Table
from slimsearch.policy import Matrix
from slimsearch.routes.traffic import Traffic


@dataclass(frozen=True)
class LatencyMeter:
    """`tokens` are in the pass that was timed, through so many `blocks`, whose matrices have `size`
    weights in all."""

    table: Table
    tokens: int
    blocks: int
    size: int

    @property
    def what(self) -> str:
        return "decoder's milliseconds"

    def matrix(self, matrix: Matrix, traffic: Traffic, levels: ndarray) -> ndarray:
        shape = f"{matrix.rows} x {matrix.columns}"
        known = [point.sparsity for point in self.table.points]
        times = [point.matrices[shape] for point in self.table.points]
        beside = [_beside(point) - self._least for point in self.table.points]
        within = np.multiply(beside, matrix.size / self.size)
        share = count.tokens_of(matrix.name, traffic) / self.tokens
        return (np.interp(levels, known, times) + np.interp(levels, known, within)) * share

    def block(self, traffic: Traffic) -> float:
        share = (traffic.tokens + traffic.fed) / (2 * self.tokens)
        return self._least / self.blocks * share

    def whole(
        self, matrices: Sequence[Matrix], levels: Sequence[float], traffics: Sequence[Traffic]
    ) -> float:
        """Of a pass through matrices at these levels."""
        found = self.rest + sum(self.block(traffic) for traffic in traffics)
        for matrix, level in zip(matrices, levels, strict=True):
            traffic = traffics[int(matrix.name.split(".")[1])]
            found += float(self.matrix(matrix, traffic, np.array([level]))[0])
        return found

    @property
    def rest(self) -> float:
        return self.table.points[0].head

    @cached_property
    def _least(self) -> float:
        """What blocks take besides matrices, whatever is zero in those."""
        return min(_beside(point) for point in self.table.points)


def _beside(point: Point) -> float:
    return point.rest - point.head
