"""A decoder in the engine: its matrices where they lie on disk, a cache that tokens are added to.

Only real tokens are read and kept: a row's padding never reaches the engine, and each row has a
cache of its own length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray

from slimsearch.contracts import Session
from slimsearch.errors import InputError
from slimsearch.model import loading
from slimsearch.native import form, library
from slimsearch.native.cache import Cache
from slimsearch.native.form import Held
from slimsearch.native.library import Engine
from slimsearch.native.mapped import Parts
from slimsearch.routes.kinds import PICTURE, PROMPT, TEXT

LANES = 16  # places of the cache that lie side by side


class NativeSession(Session):
    def __init__(self, held: Held, threads: int = 0, variant: str = ""):
        self._held = held
        tensors = held.open(form.DECODER)
        self._parts = Parts(tensors, form.shape_in(tensors))
        self._engine = Engine(threads, variant)
        self._eyes: Any = None
        self._cache: Cache | None = None
        self._told: ndarray | None = None  # classes of the tokens that the next step reads
        self.room = self._parts.shape.positions

    def see(self, pixels: ndarray) -> ndarray:
        if not loading.architecture_of(self._held.checkpoint).sees:
            raise InputError("This model reads text only; leave out the picture.")
        if self._eyes is None:
            from slimsearch.native.eyes import Eyes

            self._eyes = Eyes(self._held, self._parts.route.merge)
        return self._eyes.see(pixels)

    def embed(self, ids: ndarray) -> ndarray:
        return self._parts.embed(ids)

    def tell(self, kinds: ndarray) -> None:
        self._told = kinds

    def step(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        logits = np.zeros((len(embeds), self._parts.shape.vocabulary), np.float32)
        self._read(embeds, mask, positions, logits)
        return logits

    def step_all(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        logits = np.zeros((*embeds.shape[:2], self._parts.shape.vocabulary), np.float32)
        made = np.empty((embeds.shape[0] * embeds.shape[1], logits.shape[2]), np.float32)
        real = self._read(embeds, mask, positions, made, every=True)
        logits[real] = made[: np.count_nonzero(real)]
        return logits

    def _read(
        self,
        embeds: ndarray,
        mask: ndarray,
        positions: ndarray,
        logits: ndarray,
        every: bool = False,
    ) -> ndarray:
        """Reads tokens; which of them are real. `logits` takes the last tokens', or every one's."""
        real = mask[:, -embeds.shape[1] :] == 1
        kinds = self._kinds(embeds)
        if self._parts.route.merge is not None:  # what was merged into others comes as zeros
            real &= (kinds != PICTURE) | (embeds != 0).any(-1)
        counts = real.sum(1).astype(np.int64)
        if self._cache is None:
            self._cache = Cache(self._parts, len(embeds), self._padded_room)
        if not counts.any():
            return real
        cache, places = self._cache, np.ascontiguousarray(positions[real], np.int64)
        self._check_room(max(int(places.max()) + 1, int((cache.filled + counts).max())))
        hidden = np.array(embeds[real], np.float32)
        kinds = np.ascontiguousarray(kinds[real], np.uint8)
        self._engine.step(
            self._parts.decoder,
            library.Step(
                len(hidden), len(embeds), self._padded_room, every, library.address(counts),
                library.address(cache.filled), library.address(places), library.address(kinds),
                library.address(hidden), cache.keys.address, cache.values.address,
                cache.pictured_address, library.address(logits),
            ),
        )  # fmt: skip
        return real

    def _check_room(self, longest: int) -> None:
        if longest > self.room:
            raise InputError(
                f"{longest} tokens are more than the {self.room} that this model holds. Shorten "
                f"the prompt, or drop earlier turns."
            )

    def _kinds(self, embeds: ndarray) -> ndarray:
        """Of which class each token is: as was told, or a token alone behind others is text."""
        told, self._told = self._told, None
        if told is not None:
            return told
        said = embeds.shape[1] == 1 and self._cache is not None
        return np.full(embeds.shape[:2], TEXT if said else PROMPT, np.uint8)

    def multiply(self, given: ndarray, role: str, block: int | None = None) -> ndarray:
        """One matrix alone, of a block or the head: [tokens, columns] -> [tokens, rows]."""
        decoder = self._parts.decoder
        owner = decoder if block is None else decoder.block[block]
        return self._engine.multiply(getattr(owner, role), given)

    def forget(self) -> None:
        self._cache = self._told = None

    def close(self) -> None:
        self.forget()
        self._engine.close()
        self._eyes = None

    @property
    def _padded_room(self) -> int:
        return -(-self.room // LANES) * LANES
