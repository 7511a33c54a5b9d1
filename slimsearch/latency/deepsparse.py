"""DeepSparse's clock: its own account of a pass says which share of it each matrix took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy import ndarray

from slimsearch.graphs import decoder, masks
from slimsearch.graphs.anatomy import Decoder
from slimsearch.graphs.int8 import Int8
from slimsearch.graphs.linear import dense
from slimsearch.guest import inside
from slimsearch.guest.host import Guest
from slimsearch.latency.work import HEAD, PREFILL, Work, matrices_in, shape_of

VERSION = f"{inside.WANTED}, graphs 2"  # raised where graphs are spelled otherwise
PASSES = 5


@contextmanager
def clock(work: Work, interpreter: str = "") -> Iterator[DeepSparseClock]:
    with Guest(interpreter, work.cores) as guest, TemporaryDirectory() as place:
        yield DeepSparseClock(work, guest, Path(place))


class DeepSparseClock:
    def __init__(self, work: Work, guest: Guest, place: Path):
        self._work, self._guest, self._place = work, guest, place
        self._given: dict[str, list[ndarray]] = {}

    def take(self, name: str, parts: Decoder) -> Mapping[str, float]:
        file = self._place / f"{name}.onnx"
        fixed = _fixed(self._work)
        decoder.build(parts, fixed, Int8() if self._work.int8 else dense).write(file)
        inputs = random_inputs(parts, fixed, len(parts.blocks))
        engine = self._guest.compile(name, file)
        self._given[name] = [inputs[each] for each in engine.inputs]
        return _shares(self._guest.analyse(file, self._given[name]), parts)

    def time(self, name: str) -> list[float]:
        return self._guest.time(name, self._given[name], PASSES)


def random_inputs(parts: Decoder, fixed: decoder.Fixed, blocks: int) -> dict[str, ndarray]:
    """Something to read for a fixed graph, by the names of its inputs."""
    draw = np.random.default_rng(0)
    whole = fixed.past + fixed.tokens
    shape = (1, parts.key_heads, fixed.past, parts.head_width)
    caches = {
        f"past_key_values.{index}.{kind}": draw.standard_normal(shape, dtype=np.float32)
        for index in range(blocks if fixed.past else 0)
        for kind in ("key", "value")
    }
    return {
        "inputs_embeds": draw.standard_normal((1, fixed.tokens, parts.width), dtype=np.float32),
        "position_ids": np.arange(fixed.past, whole)[None],
        **masks.arrays(fixed, parts.windows),
        **caches,
    }


def _fixed(work: Work) -> decoder.Fixed:
    if work.phase == PREFILL:
        return decoder.Fixed(work.tokens, past=0)
    return decoder.Fixed(tokens=1, past=work.tokens)


def _shares(analysis: Mapping[str, Any], parts: Decoder) -> dict[str, float]:
    layers = {
        layer["canonical_name"].removesuffix(":0"): layer["average_run_time_in_ms"]
        for layer in analysis["layer_info"]
    }
    whole = sum(layer["average_run_time_in_ms"] for layer in analysis["layer_info"])
    times: dict[str, list[float]] = {}
    for matrix in matrices_in(parts):
        times.setdefault(shape_of(matrix.weight), []).append(layers.get(matrix.name, 0.0))
    found = {shape: fmean(each) / whole for shape, each in times.items()}
    return {**found, HEAD: layers.get(parts.head.name, 0.0) / whole}
