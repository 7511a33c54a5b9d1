"""Times a decoder at several sparsities, interleaved, and splits the time by matrix.

A clock of the engine says which share of a pass each matrix took; the pass as timed from outside
says how long all of it took. Passes of the sparsities take turns, and the fast quarter of each
counts, so that what else the machine does hardly enters.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from slimsearch.graphs import anatomy
from slimsearch.graphs.anatomy import Decoder, Matrix
from slimsearch.latency import deepsparse, native, table
from slimsearch.latency.table import Part, Point, Table
from slimsearch.latency.work import HEAD, Work, matrices_in, matrices_of, quick, shape_of
from slimsearch.model.vlm import VLM
from slimsearch.native import form

CLOCKS = {"deepsparse": deepsparse, "native": native}
GRID = (0.0, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9)  # DeepSparse's kernels start at 0.40-0.45
ROUNDS = 8
LARGEST = 1 << 28  # weights in matrices beyond which fewer blocks are timed and scaled up


class Clock(Protocol):
    """An engine that holds decoders under names, so that they can take turns."""

    def take(self, name: str, parts: Decoder) -> Mapping[str, float]:
        """Readies a decoder; the share of a pass that one matrix of each shape takes, and HEAD."""
        ...

    def time(self, name: str) -> list[float]:
        """Seconds of each of several passes."""
        ...


@dataclass(frozen=True)
class Timing:
    total: float  # milliseconds of a pass
    shares: Mapping[str, float]  # of it, as Clock.take gives them


def work_of(vlm: VLM, engine: str, phase: str, tokens: int) -> Work:
    """What is timed for an engine such as 'native-int8'; without a dtype it holds its own."""
    name, _, dtype = engine.partition("-")
    own = "float32" if name == "deepsparse" else form.held_as(str(vlm.disk_dtype)[6:])
    return Work(phase, tokens, name, dtype or own)


def table_of(vlm: VLM, work: Work, interpreter: str = "") -> Table:
    """The times of a model's decoder, from the cache or measured now (a minute or more).

    `interpreter` is a Python that has DeepSparse, where this one has not.
    """
    parts = anatomy.read(vlm)
    key = _key(parts, work)
    found = table.cached(key)
    if found is None:
        found = Table(key, measure(parts, work, interpreter))
        table.keep(found)
    return found


def parts_of(vlm: VLM) -> list[Part]:
    """A model's matrices with the sparsity that they have now."""
    found = []
    for matrix in vlm.matrices:
        weight = vlm.linear(matrix.name).weight
        kept = int(weight.count_nonzero())
        found.append(Part(shape_of(weight), matrix.size, 1 - kept / matrix.size))
    return found


def measure(parts: Decoder, work: Work, interpreter: str = "") -> tuple[Point, ...]:
    """One point for each sparsity of GRID."""
    few = few_blocks(parts)
    made = {str(sparsity): partial(thinned, few, sparsity) for sparsity in GRID}
    return points(parts, timed(made, work, interpreter))


def timed(
    made: Mapping[str, Callable[[], Decoder]], work: Work, interpreter: str = ""
) -> dict[str, Timing]:
    """Several decoders in one engine, each made when it is taken, taking turns."""
    shares: dict[str, Mapping[str, float]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in made}
    with CLOCKS[work.engine].clock(work, interpreter) as clock:
        for name, make in made.items():
            shares[name] = clock.take(name, make())
        for _ in range(ROUNDS):
            for name, found in seconds.items():
                found += clock.time(name)
    return {name: Timing(quick(seconds[name]) * 1e3, shares[name]) for name in made}


def points(parts: Decoder, timings: Mapping[str, Timing]) -> tuple[Point, ...]:
    """The points of a table, out of what was timed of each sparsity of GRID."""
    return tuple(_point(sparsity, timings[str(sparsity)], parts) for sparsity in GRID)


def few_blocks(parts: Decoder) -> Decoder:
    """The first blocks of a large decoder, at least two; all of a small one."""
    size = sum(matrix.weight.numel() for matrix in matrices_of(parts.blocks[0]))
    return replace(parts, blocks=parts.blocks[: max(2, LARGEST // size)])


def thinned(parts: Decoder, sparsity: float) -> Decoder:
    """The decoder with a random share of each of its matrices' weights set to zero."""
    draw = torch.Generator().manual_seed(0)

    def thin(matrix: Matrix) -> Matrix:
        weight = matrix.weight.detach().to("cpu", copy=True)
        weight[torch.rand(weight.shape, generator=draw) < sparsity] = 0
        return replace(matrix, weight=weight)

    return replace(parts, blocks=tuple(block.changed(thin) for block in parts.blocks))


def _point(sparsity: float, timing: Timing, parts: Decoder) -> Point:
    """Scales what was timed up to all blocks: the head stays, all else grows."""
    few = few_blocks(parts)
    matrices = {shape: share * timing.total for shape, share in timing.shares.items()}
    head = matrices.pop(HEAD)
    inside_blocks = sum(matrices[shape_of(matrix.weight)] for matrix in matrices_in(few))
    rest = (timing.total - inside_blocks - head) * len(parts.blocks) / len(few.blocks)
    return Point(sparsity, matrices, rest + head, head)


def _key(parts: Decoder, work: Work) -> dict[str, Any]:
    first = parts.blocks[0]
    return {
        "processor": _processor(),
        "version": CLOCKS[work.engine].VERSION,
        "work": asdict(work),
        "blocks": len(parts.blocks),
        "matrices": {matrix.name[9:]: shape_of(matrix.weight) for matrix in matrices_of(first)},
        "heads": [parts.heads, parts.key_heads, parts.head_width],
        "vocabulary": parts.embedding.shape[0],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(named)} x {named[0]}" if named else platform.processor()
