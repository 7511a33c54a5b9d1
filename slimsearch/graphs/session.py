"""A model as three graphs in an engine: pictures, embeddings and a decoder with its cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from slimsearch.contracts import Session
from slimsearch.errors import InputError
from slimsearch.graphs import forms

LOGITS, PAST, PRESENT = "logits", "past_key_values.", "present."


@dataclass(frozen=True)
class Engine:
    """One graph, ready to run: what it makes of its inputs, in the order of `outputs`."""

    run: Callable[[Mapping[str, ndarray]], list[ndarray]]
    outputs: list[str]
    pasts: Mapping[str, tuple[int, int]]  # a decoder's cache inputs: heads and width of each


class GraphSession(Session):
    """Keys and values come out of one step and go into the next; nothing else is kept."""

    def __init__(self, engines: Mapping[str, Engine], room: int):
        self._engines = dict(engines)
        self.room = room
        self._cache: dict[str, ndarray] = {}

    def see(self, pixels: ndarray) -> ndarray:
        if forms.VISION not in self._engines:
            raise InputError("This model reads text only; leave out the picture.")
        return self._engines[forms.VISION].run({"pixel_values": pixels})[0]

    def embed(self, ids: ndarray) -> ndarray:
        return self._engines[forms.EMBEDDING].run({"input_ids": ids})[0]

    def step(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        decoder = self._engines[forms.DECODER]
        cache = self._cache or {
            name: np.zeros((len(embeds), heads, 0, width), np.float32)
            for name, (heads, width) in decoder.pasts.items()
        }
        given = {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": positions}
        made = dict(zip(decoder.outputs, decoder.run(given | cache), strict=True))
        logits = made.pop(LOGITS)
        self._cache = {name.replace(PRESENT, PAST): value for name, value in made.items()}
        return logits[:, -1]

    def forget(self) -> None:
        self._cache = {}

    def close(self) -> None:
        self.forget()
        self._engines.clear()
