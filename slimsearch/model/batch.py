"""Sequences side by side: what reaches the decoder at once.

They are padded on the right and no text is attended to before it was read: padding is never seen,
and needs no mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional

from slimsearch.model.sight import Look
from slimsearch.routes.kinds import PADDING
from slimsearch.routes.merging import Salience

IGNORED = -100  # a position whose next token is not predicted


@dataclass(frozen=True)
class Batch:
    """`rows` sequences of equal padded length."""

    ids: Tensor  # [rows, length]
    targets: Tensor  # [rows, length], the token that follows, or IGNORED
    classes: Tensor  # [rows, length], PADDING, PROMPT or TEXT
    turns: Tensor  # [rows, length], which answer a target belongs to, -1 for none
    looks: tuple[Look, ...] | None = None  # the picture of each row
    source: str = "text"  # the calibration set that it comes from
    origins: tuple[str, ...] = ()  # of pairs: which one each row holds

    @property
    def tokens(self) -> int:
        return int((self.classes != PADDING).sum())

    def rows(self, start: int, stop: int) -> Batch:
        """Some of its rows."""
        some = slice(start, stop)
        looks = None if self.looks is None else self.looks[some]
        return Batch(
            self.ids[some], self.targets[some], self.classes[some], self.turns[some], looks,
            self.source, self.origins[some],
        )  # fmt: skip

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        looks = None if self.looks is None else tuple(look.to(device) for look in self.looks)
        return replace(self, **moved, looks=looks)

    def split(self, rows: int) -> list[Batch]:
        """The same rows in batches of at most so many."""
        return [self.rows(start, start + rows) for start in range(0, len(self.ids), rows)]


@dataclass(frozen=True)
class Calibrated:
    """What the model is measured on: text segments and image-text pairs, as batches."""

    texts: tuple[Batch, ...]
    pairs: tuple[Batch, ...]
    also: tuple[Batch, ...] = ()  # feeds the Hessians and nothing else
    share: float = 1.0  # of everything that the model is measured on

    @property
    def all(self) -> tuple[Batch, ...]:
        return self.texts + self.pairs + self.also

    def to(self, device: torch.device) -> Calibrated:
        """The same on another device."""
        moved = (tuple(b.to(device) for b in some) for some in (self.texts, self.pairs, self.also))
        return Calibrated(*moved, share=self.share)

    def split(self, rows: int) -> Calibrated:
        """The same in batches of at most so many rows."""
        texts, pairs = (
            tuple(part for batch in some for part in batch.split(rows))
            for some in (self.texts, self.pairs)
        )
        return Calibrated(texts, pairs, share=self.share)

    def part(self, share: float, beyond: float = 0.0) -> Calibrated:
        """About this share of the texts and of the pairs, less what a smaller share holds already:
        always the same rows."""
        texts, pairs = (_part(batches, beyond, share) for batches in (self.texts, self.pairs))
        return Calibrated(texts, pairs, share=share)


def batches_of(rows: list[Batch], most_tokens: int, padding: int) -> Iterator[Batch]:
    """Packs single-row batches of like length together, each within `most_tokens`."""
    waiting: list[Batch] = []
    for row in sorted(rows, key=lambda row: row.ids.shape[1]):
        if waiting and (len(waiting) + 1) * row.ids.shape[1] > most_tokens:
            yield _stack(waiting, padding)
            waiting = []
        waiting.append(row)
    if waiting:
        yield _stack(waiting, padding)


def by_turn(batch: Batch, tokens: Tensor) -> list[dict[int, list[int]]]:
    """Tokens, one for each target of a batch, by row and turn."""
    found: list[dict[int, list[int]]] = [{} for _ in range(len(batch.ids))]
    where = (batch.targets != IGNORED).nonzero(as_tuple=True)
    turns = batch.turns[where].tolist()
    for row, turn, token in zip(where[0].tolist(), turns, tokens.tolist(), strict=True):
        found[row].setdefault(turn, []).append(token)
    return found


def _part(batches: tuple[Batch, ...], beyond: float, share: float) -> tuple[Batch, ...]:
    """The rows of a share without those of a smaller one, each spread evenly over all.

    Rows lie by length, and what is pruned well for short conversations may be pruned badly for
    long ones.
    """
    if not batches or (beyond <= 0 and share >= 1):
        return batches
    rows = [row for batch in batches for row in batch.split(1)]
    first, last = (ceil(part * len(rows)) for part in (beyond, share))
    chosen = [rows[place] for place in sorted(_spread(len(rows))[first:last])]
    most = max(batch.ids.numel() for batch in batches)
    padding = int(rows[0].ids[0, -1])  # any token but a picture's; a row ends with text
    return tuple(batches_of(chosen, most, padding))


def _spread(count: int) -> list[int]:
    """The numbers below `count` in an order whose every beginning lies evenly: bits reversed."""
    bits = (count - 1).bit_length()
    turned = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits))
    return [number for number in turned if number < count]


def saliences(batches: Sequence[Batch]) -> list[Salience]:
    """What merging asks of the pictures of some batches, where that was noted."""
    return [look.salience for batch in batches for look in batch.looks or () if look.salience]


def _stack(rows: list[Batch], padding: int) -> Batch:
    length = max(row.ids.shape[1] for row in rows)

    def pad(name: str, value: int) -> Tensor:
        parts = [getattr(row, name) for row in rows]
        return torch.cat(
            [functional.pad(part, (0, length - part.shape[1]), value=value) for part in parts]
        )

    looks = tuple(look for row in rows for look in row.looks or ())
    return Batch(
        ids=pad("ids", padding),
        targets=pad("targets", IGNORED),
        classes=pad("classes", PADDING),
        turns=pad("turns", -1),
        looks=looks or None,
        source=rows[0].source,
        origins=tuple(origin for row in rows for origin in row.origins),
    )
