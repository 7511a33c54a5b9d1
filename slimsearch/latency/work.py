"""What is timed, and the words that clocks and their table share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import Tensor

from slimsearch.graphs.anatomy import Block, Decoder, Matrix

PREFILL, DECODE = "prefill", "decode"
HEAD = "head"


@dataclass(frozen=True)
class Work:
    """`tokens` are a prompt's (prefill) or those in the cache (decode)."""

    phase: str
    tokens: int
    engine: str  # of stopwatch.CLOCKS
    dtype: str  # in which the engine holds weights
    cores: int = 0  # 0: all

    @property
    def int8(self) -> bool:
        return self.dtype == "int8"


def matrices_of(block: Block) -> list[Matrix]:
    return list(block.matrices.values())


def matrices_in(parts: Decoder) -> Iterator[Matrix]:
    for block in parts.blocks:
        yield from matrices_of(block)


def shape_of(weight: Tensor) -> str:
    rows, columns = weight.shape
    return f"{rows} x {columns}"


def quick(seconds: Sequence[float]) -> float:
    """The mean of the fast quarter."""
    return fmean(sorted(seconds)[: max(1, len(seconds) // 4)])
