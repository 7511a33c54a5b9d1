"""What a decoder reads in one call: of which class each token is, and what was read before.

A cache of keys and values carries its Ledger. A model's own way to count what was read is to look
at its first block's cache, which may hold less than was read, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from slimsearch.routes.kinds import PADDING, PICTURE
from slimsearch.routes.route import Kinds
from slimsearch.routes.subset import Subset

Sees = Callable[[Any, Any, Any, Any], Any]  # as transformers writes masks: (row, head, from, to)


@dataclass
class Ledger:
    """Everything that a cache was shown, and which of it each block holds."""

    kinds: Tensor  # [rows, places]
    held: dict[int, Tensor] = field(default_factory=dict)  # block -> places [rows, length], or -1

    @property
    def places(self) -> int:
        return self.kinds.shape[1]

    def holding(self, block: int) -> Tensor:
        return self.held.get(block, self.kinds.new_zeros(len(self.kinds), 0, dtype=torch.long))


@dataclass(frozen=True)
class View:
    """What some tokens see in a block: who asks, who is there, and who sees whom by the model.

    `asking` and `there` are places in everything that was read, [rows, length], or -1.
    """

    asking: Tensor
    there: Tensor
    pictured: Tensor  # whether what is there is a picture's, [rows, length]
    sees: Sees
    causal: bool  # `sees` is: whatever is not behind
    window: int | None

    @property
    def before(self) -> int:
        """How much of what is there was there before."""
        return self.there.shape[1] - self.asking.shape[1]

    def allowed(self, asking: Tensor, there: Tensor) -> Tensor | None:
        """[rows, 1, asking, there]; None where everything sees everything."""
        filled = bool((asking < 0).any()) or bool((there < 0).any())
        if self.causal and asking.shape[1] == 1 and not filled:
            return None
        rows = torch.arange(len(asking), device=asking.device)[:, None, None, None]
        ask, seen = asking[:, None, :, None], there[:, None, None, :]
        found = self.sees(rows, rows.new_zeros(()), ask.clamp(min=0), seen.clamp(min=0))
        return (found & (seen >= 0)) | (ask < 0)  # what fills rows up sees something too


class Passage:
    """The tokens of one call, [rows, length], beside what its cache was shown before."""

    def __init__(self, kinds: Tensor, cache: Any = None):
        self.kinds = kinds
        self.ledger = self._ledger(cache)
        self.aside: dict[int, Tensor] = {}  # block -> what it did, for the next one to add
        self.here: Subset | None = None  # what is being computed
        self._subsets: dict[Kinds, Subset] = {}

    @cached_property
    def twin(self) -> Passage:
        """The same tokens in another model, side by side with this one."""
        return Passage(self.kinds)

    def subset(self, skipped: Kinds) -> Subset:
        """The tokens that are of no such class, and no padding."""
        if skipped not in self._subsets:
            padding = self.kinds == PADDING
            live = ~padding
            for kind in skipped:
                live = live & (self.kinds != kind)
            self._subsets[skipped] = Subset.where(live, padding)
        return self._subsets[skipped]

    def view(
        self, block: int, asking: Subset, cache: Any, sees: Sees, causal: bool, window: int | None
    ) -> View:
        """What a block's tokens see; those themselves are now in the cache, if there is one."""
        self.ledger = ledger = self._ledger(cache)
        begin = 0 if ledger is None else ledger.places
        own = torch.where(asking.real, asking.at + begin, -1)
        there, kinds = own, self.kinds
        if ledger is not None:
            there = ledger.held[block] = torch.cat([ledger.holding(block), own], 1)
            kinds = torch.cat([ledger.kinds, kinds], 1)
        pictured = (kinds.gather(1, there.clamp(min=0)) == PICTURE) & (there >= 0)
        return View(own, there, pictured, sees, causal, window)

    def _ledger(self, cache: Any) -> Ledger | None:
        """A cache's own; a fresh cache counts what it was shown from here on."""
        if cache is None:
            return None
        if not hasattr(cache, "ledger"):
            cache.ledger = Ledger(self.kinds[:, :0])
            cache.get_seq_length = lambda layer_idx=0: cache.ledger.places
        return cache.ledger

    def close(self) -> None:
        """Takes the tokens as read."""
        if self.ledger is not None:
            self.ledger.kinds = torch.cat([self.ledger.kinds, self.kinds], 1)
