"""Times a decoder at several sparsities, interleaved, and splits the time by matrix.

A clock of the engine says which share of a pass each matrix took; the pass as timed from outside
says how long all of it took. Passes of the sparsities take turns, and the fast quarter of each
counts, so that what else the machine does hardly enters.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from slimsearch.graphs import anatomy
from slimsearch.graphs.anatomy import Decoder, Matrix
from slimsearch.latency import deepsparse, native, table
from slimsearch.latency.table import Part, Point, Table
from slimsearch.latency.work import HEAD, ROLES, Work, matrices_in, matrices_of, quick, shape_of
from slimsearch.native import form
from slimsearch.vlm import VLM

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
    few = _few(parts)
    shares: dict[float, Mapping[str, float]] = {}
    seconds: dict[float, list[float]] = {sparsity: [] for sparsity in GRID}
    with CLOCKS[work.engine].clock(work, interpreter) as clock:
        for sparsity in GRID:
            shares[sparsity] = clock.take(str(sparsity), thinned(few, sparsity))
        for _ in range(ROUNDS):
            for sparsity, found in seconds.items():
                found += clock.time(str(sparsity))
    blocks = len(parts.blocks)
    return tuple(_point(s, quick(seconds[s]) * 1e3, shares[s], few, blocks) for s in GRID)


def thinned(parts: Decoder, sparsity: float) -> Decoder:
    """The decoder with a random share of each of its matrices' weights set to zero."""
    draw = torch.Generator().manual_seed(0)

    def thin(matrix: Matrix) -> Matrix:
        weight = matrix.weight.detach().to("cpu", copy=True)
        weight[torch.rand(weight.shape, generator=draw) < sparsity] = 0
        return replace(matrix, weight=weight)

    blocks = tuple(
        replace(block, **{role: thin(getattr(block, role)) for role in ROLES})
        for block in parts.blocks
    )
    return replace(parts, blocks=blocks)


def _few(parts: Decoder) -> Decoder:
    """The first blocks of a large decoder, at least two; all of a small one."""
    size = sum(matrix.weight.numel() for matrix in matrices_of(parts.blocks[0]))
    return replace(parts, blocks=parts.blocks[: max(2, LARGEST // size)])


def _point(
    sparsity: float, total: float, shares: Mapping[str, float], few: Decoder, blocks: int
) -> Point:
    """Scales what was timed up to all blocks: the head stays, all else grows."""
    matrices = {shape: share * total for shape, share in shares.items()}
    head = matrices.pop(HEAD)
    inside_blocks = sum(matrices[shape_of(matrix.weight)] for matrix in matrices_in(few))
    rest = (total - inside_blocks - head) * blocks / len(few.blocks)
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
