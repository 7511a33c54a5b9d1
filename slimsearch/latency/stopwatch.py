"""Times a decoder in DeepSparse at several sparsities, interleaved, and splits the time by matrix.

The engine's own account of a pass says which share of it each matrix took; the pass as timed from
outside says how long all of it took. Passes of the sparsities take turns, and the fast quarter of
each counts, so that what else the machine does hardly enters.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from slimsearch.graphs import anatomy, decoder
from slimsearch.graphs.anatomy import Block, Decoder, Matrix
from slimsearch.graphs.int8 import Int8
from slimsearch.graphs.linear import dense
from slimsearch.guest import inside
from slimsearch.guest.host import Guest
from slimsearch.latency import table
from slimsearch.latency.table import Part, Point, Table
from slimsearch.vlm import VLM

GRID = (0.0, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9)  # the engine's sparse kernels start at 0.40-0.45
ROUNDS, PASSES = 8, 5
LARGEST = 1 << 28  # weights in matrices beyond which fewer blocks are timed and scaled up
PREFILL, DECODE = "prefill", "decode"
HEAD = "head"
ROLES = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class Work:
    """What is timed: `tokens` are a prompt's (prefill) or those in the cache (decode)."""

    phase: str
    tokens: int
    int8: bool
    cores: int = 0  # 0: all

    @property
    def fixed(self) -> decoder.Fixed:
        if self.phase == PREFILL:
            return decoder.Fixed(self.tokens, past=0)
        return decoder.Fixed(tokens=1, past=self.tokens)


def table_of(vlm: VLM, work: Work, interpreter: str = "") -> Table:
    """The times of a model's decoder, from the cache or measured now (a minute or more)."""
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
    inputs = random_inputs(parts, work.fixed, len(few.blocks))
    given: list[ndarray] = []  # the same for every sparsity
    shares: dict[float, dict[str, float]] = {}
    seconds: dict[float, list[float]] = {sparsity: [] for sparsity in GRID}
    with Guest(interpreter, work.cores) as guest, TemporaryDirectory() as place:
        for sparsity in GRID:
            file = Path(place, f"{sparsity}.onnx")
            linear = Int8() if work.int8 else dense
            decoder.build(thinned(few, sparsity), work.fixed, linear).write(file)
            engine = guest.compile(str(sparsity), file)
            given = [inputs[name] for name in engine.inputs]
            shares[sparsity] = _shares(guest.analyse(file, given), few)
        for _ in range(ROUNDS):
            for sparsity, found in seconds.items():
                found += guest.time(str(sparsity), given, PASSES)
    blocks = len(parts.blocks)
    return tuple(_point(s, quick(seconds[s]) * 1e3, shares[s], few, blocks) for s in GRID)


def quick(seconds: Sequence[float]) -> float:
    """The mean of the fast quarter."""
    return fmean(sorted(seconds)[: max(1, len(seconds) // 4)])


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


def random_inputs(parts: Decoder, fixed: decoder.Fixed, blocks: int) -> dict[str, ndarray]:
    """Something to read for a fixed graph, by the names of its inputs."""
    draw = np.random.default_rng(0)
    whole = fixed.past + fixed.tokens
    mask = np.triu(np.full((fixed.tokens, whole), decoder.HIDDEN, np.float32), 1 + fixed.past)
    shape = (1, parts.key_heads, fixed.past, parts.head_width)
    caches = {
        f"past_key_values.{index}.{kind}": draw.standard_normal(shape, dtype=np.float32)
        for index in range(blocks if fixed.past else 0)
        for kind in ("key", "value")
    }
    return {
        "inputs_embeds": draw.standard_normal((1, fixed.tokens, parts.width), dtype=np.float32),
        "position_ids": np.arange(fixed.past, whole)[None],
        "mask": mask[None, None],
        **caches,
    }


def shape_of(weight: torch.Tensor) -> str:
    rows, columns = weight.shape
    return f"{rows} x {columns}"


def _few(parts: Decoder) -> Decoder:
    """The first blocks of a large decoder, at least two; all of a small one."""
    size = sum(matrix.weight.numel() for matrix in _matrices(parts.blocks[0]))
    return replace(parts, blocks=parts.blocks[: max(2, LARGEST // size)])


def _shares(analysis: Mapping[str, Any], parts: Decoder) -> dict[str, float]:
    """The share of a pass that one matrix of each shape takes, and the head."""
    layers = {
        layer["canonical_name"].removesuffix(":0"): layer["average_run_time_in_ms"]
        for layer in analysis["layer_info"]
    }
    whole = sum(layer["average_run_time_in_ms"] for layer in analysis["layer_info"])
    times: dict[str, list[float]] = {}
    for block in parts.blocks:
        for matrix in _matrices(block):
            times.setdefault(shape_of(matrix.weight), []).append(layers.get(matrix.name, 0.0))
    found = {shape: fmean(each) / whole for shape, each in times.items()}
    return {**found, HEAD: layers.get(parts.head.name, 0.0) / whole}


def _point(
    sparsity: float, total: float, shares: Mapping[str, float], few: Decoder, blocks: int
) -> Point:
    """Scales what was timed up to all blocks: the head stays, all else grows."""
    matrices = {shape: share * total for shape, share in shares.items()}
    head = matrices.pop(HEAD)
    inside_blocks = sum(
        matrices[shape_of(matrix.weight)] for block in few.blocks for matrix in _matrices(block)
    )
    rest = (total - inside_blocks - head) * blocks / len(few.blocks)
    return Point(sparsity, matrices, rest + head)


def _key(parts: Decoder, work: Work) -> dict[str, Any]:
    first = parts.blocks[0]
    return {
        "processor": _processor(),
        "deepsparse": inside.WANTED,
        "work": asdict(work),
        "blocks": len(parts.blocks),
        "matrices": {matrix.name[9:]: shape_of(matrix.weight) for matrix in _matrices(first)},
        "heads": [parts.heads, parts.key_heads, parts.head_width],
        "vocabulary": parts.embedding.shape[0],
    }


def _matrices(block: Block) -> list[Matrix]:
    return [getattr(block, role) for role in ROLES]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(named)} x {named[0]}" if named else platform.processor()
