"""Some of the tokens that a call reads, taken out into shorter rows and put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Subset:
    """`at` [rows, count] are places among `length` tokens, in order; -1 fills rows up at the right.

    It is `whole` where every place stays what it was: then nothing is copied.
    """

    at: Tensor
    length: int
    whole: bool

    @classmethod
    def where(cls, live: Tensor, idle: Tensor | None = None) -> Subset:
        """The places that are True, [rows, length]; of those `idle` it does not matter what
        becomes."""
        counts = live.sum(1)
        longest = int(counts.max()) if len(live) else 0
        order = live.byte().sort(dim=1, descending=True, stable=True).indices[:, :longest]
        places = torch.arange(longest, device=live.device)
        at = torch.where(places < counts[:, None], order, -1)
        kept = live if idle is None else live | idle
        whole = bool(kept.all()) and longest == live.shape[1]
        whole = whole and bool(((at == places) | (at < 0)).all())
        return cls(at, live.shape[1], whole)

    @property
    def count(self) -> int:
        return self.at.shape[1]

    @property
    def real(self) -> Tensor:
        """[rows, count], False where a row is filled up."""
        return self.at >= 0

    def take(self, tensor: Tensor, dim: int = 1, rows: int = 0) -> Tensor:
        """Its tokens of a tensor, which has them along `dim`; what fills up is some token's."""
        if self.whole:
            return tensor
        shape = list(tensor.shape)
        shape[rows] = len(self.at)  # one row may stand for all
        index = self._spread(self.at.clamp(min=0), shape, dim, rows)
        return tensor.expand(shape).gather(dim, index)

    def put(self, onto: Tensor, taken: Tensor, dim: int = 1) -> Tensor:
        """A copy of a tensor in which its tokens are those."""
        if self.whole:
            return taken
        index = torch.where(self.real, self.at, self.length)
        spare = torch.cat([onto, onto.narrow(dim, 0, 1)], dim)  # takes what fills rows up
        spread = self._spread(index, list(onto.shape), dim, 0)
        return spare.scatter(dim, spread, taken).narrow(dim, 0, self.length)

    def taken(self, called: Mapping[str, Any]) -> dict[str, Any]:
        """What a block is called with, its positions those of these tokens."""
        found = dict(called)
        if self.whole:
            return found
        if (rotation := found.get("position_embeddings")) is not None:
            found["position_embeddings"] = tuple(
                self.take(part, part.ndim - 2, part.ndim - 3) for part in rotation
            )
        if (places := found.get("position_ids")) is not None:
            found["position_ids"] = self.take(places, places.ndim - 1, places.ndim - 2)
        return found

    def within(self, outer: Subset) -> Subset:
        """The same tokens by where they stand in another subset that holds them all."""
        if outer.whole:
            return self
        ranks = torch.zeros(len(self.at), outer.length + 1, dtype=torch.long, device=self.at.device)
        places = torch.arange(outer.count, device=self.at.device).expand_as(outer.at)
        ranks.scatter_(1, torch.where(outer.real, outer.at, outer.length), places)
        at = torch.where(self.real, ranks.gather(1, self.at.clamp(min=0)), -1)
        whole = self.count == outer.count and bool((self.real == outer.real).all())
        return Subset(at, outer.count, whole)

    def _spread(self, places: Tensor, shape: list[int], dim: int, rows: int) -> Tensor:
        """Places [rows, count] for every other index of a tensor."""
        alone = [1] * len(shape)
        alone[rows], alone[dim] = places.shape
        return places.view(alone).expand(*shape[:dim], places.shape[1], *shape[dim + 1 :])
