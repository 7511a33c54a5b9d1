"""A decoder in the engine without the rest of its model: for timing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy import ndarray

from slimsearch.files import to_json
from slimsearch.graphs.anatomy import Decoder
from slimsearch.model.checkpoint import Checkpoint
from slimsearch.native import form, parts
from slimsearch.native.form import Held
from slimsearch.native.session import NativeSession

DRIFT = 32  # tokens that a cache may have grown by
UNREAD = ("embedding", "cos", "sin")  # parts of which one token reads next to nothing


@dataclass(frozen=True)
class Bare:
    session: NativeSession
    bytes: int  # on disk
    read: int  # of those, by one token


def opened(decoder: Decoder, dtype: str, folder: Path, threads: int = 0) -> Bare:
    """Writes a decoder into a folder and opens it from there."""
    own = folder / form.FORM
    own.mkdir(parents=True)
    held = list(parts.parts_of(decoder, dtype, lambda matrix: None))
    shape = form.described(decoder, dtype, {}, {})
    seal = form.write(own / form.DECODER, held, to_json(asdict(shape)))
    session = NativeSession(Held(Checkpoint(folder, {}, {}), {form.DECODER: seal}), threads)
    read = sum(part.size for part in held if not part.name.startswith(UNREAD))
    return Bare(session, seal["bytes"], read)


class Passes:
    """Passes of `tokens` behind `past` others. A cache serves many: it grows by a few tokens."""

    def __init__(self, session: NativeSession, width: int, tokens: int, past: int):
        self._session, self._past = session, past
        draw = np.random.default_rng(0)
        self._given = draw.standard_normal((1, tokens, width), np.float32)
        self._before = draw.standard_normal((1, past, width), np.float32)
        self._read = -1  # tokens in the cache, -1 before the first

    def time(self, count: int) -> list[float]:
        """Seconds of each of several passes."""
        return [self._once() for _ in range(count)]

    def _once(self) -> float:
        if not self._past or not self._past <= self._read < self._past + DRIFT:
            self._session.forget()
            self._read = 0
            if self._past:
                self._step(self._before)
                self._step(self._given)  # the first behind a prompt pays for what it left
        return self._step(self._given)

    def _step(self, embeds: ndarray) -> float:
        count = embeds.shape[1]
        mask = np.ones((1, self._read + count), np.int64)
        places = np.arange(self._read, self._read + count)[None]
        began = perf_counter()
        self._session.step(embeds, mask, places)
        seconds = perf_counter() - began
        self._read += count
        return seconds
