"""FLOPs of a decoder's parts, for a bill: what zeros leave of them."""

from __future__ import annotations

from dataclasses import dataclass

from numpy import ndarray

from slimsearch.flops import count
from slimsearch.flops.shape import Shape
from slimsearch.policy import Matrix
from slimsearch.routes.traffic import Traffic


@dataclass(frozen=True)
class FlopMeter:
    shape: Shape

    @property
    def what(self) -> str:
        return "decoder's FLOPs"

    def matrix(self, matrix: Matrix, traffic: Traffic, levels: ndarray) -> ndarray:
        return 2.0 * matrix.size * count.tokens_of(matrix.name, traffic) * (1 - levels)

    def block(self, traffic: Traffic) -> float:
        return count.scores(self.shape, traffic)

    @property
    def rest(self) -> float:
        return 2.0 * self.shape.head
