"""Our own engine's clock: passes as they are, and each matrix alone for its share of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from slimsearch.graphs.anatomy import Decoder
from slimsearch.latency.work import HEAD, PREFILL, Work, matrices_in, quick, shape_of
from slimsearch.native import bare
from slimsearch.native.bare import Bare, Passes
from slimsearch.version import __version__

VERSION = __version__
PASSES = 5
REPEATS = 8  # times that each matrix is timed alone


@contextmanager
def clock(work: Work, _: str = "") -> Iterator[NativeClock]:
    with ExitStack() as stack, TemporaryDirectory() as place:
        yield NativeClock(work, Path(place), stack)


class NativeClock:
    def __init__(self, work: Work, place: Path, stack: ExitStack):
        self._work, self._place, self._stack = work, place, stack
        self._passes: dict[str, Passes] = {}

    def take(self, name: str, parts: Decoder) -> Mapping[str, float]:
        work = self._work
        opened = bare.opened(parts, work.dtype, self._place / name, work.cores)
        self._stack.callback(opened.session.close)
        tokens, past = (work.tokens, 0) if work.phase == PREFILL else (1, work.tokens)
        self._passes[name] = Passes(opened.session, parts.width, tokens, past)
        alone = _alone(opened, parts, tokens)
        whole = quick(self._passes[name].time(2 * PASSES))
        whole = max(whole, sum(alone[shape_of(m.weight)] for m in matrices_in(parts)) + alone[HEAD])
        return {shape: seconds / whole for shape, seconds in alone.items()}

    def time(self, name: str) -> list[float]:
        return self._passes[name].time(PASSES)


def _alone(opened: Bare, parts: Decoder, tokens: int) -> dict[str, float]:
    """Seconds of one matrix of each shape, and of the head, which reads one token."""
    places = [(index, role) for index, b in enumerate(parts.blocks) for role in b.matrices]
    found: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        for index, role in places:
            weight = parts.blocks[index].matrices[role].weight
            taken = _once(opened, weight.shape[1], tokens, role, index)
            found.setdefault(shape_of(weight), []).append(taken)
        found.setdefault(HEAD, []).append(_once(opened, parts.width, 1, HEAD, None))
    calls = [_once(opened, parts.width, 0, HEAD, None) for _ in range(100)]
    return {shape: max(0.0, quick(each) - quick(calls)) for shape, each in found.items()}


def _once(opened: Bare, columns: int, tokens: int, role: str, block: int | None) -> float:
    given = np.ones((tokens, columns), np.float32)
    began = perf_counter()
    opened.session.multiply(given, role, block)
    return perf_counter() - began
