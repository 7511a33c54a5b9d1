"""Attention with grouped keys over a key-value cache, spelled out in a sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from slimsearch.graphs.anatomy import Block, Decoder, Matrix, Rotation
from slimsearch.graphs.layers import capped, cut, normed, part
from slimsearch.graphs.masks import Fixed
from slimsearch.graphs.sheet import Sheet

MUCH, ALIGNED = 256, 16  # places of a cache, and what divides them and the width of heads


class Attention:
    """`tokens` is how many are read, or the name of any number; `places` are their positions;
    `linear` multiplies by a matrix."""

    def __init__(
        self,
        sheet: Sheet,
        decoder: Decoder,
        fixed: Fixed | None,
        linear: Callable[[str, Matrix], str],
        places: str,
    ):
        self.sheet, self.decoder, self.fixed, self.linear = sheet, decoder, fixed, linear
        self.tokens: int | str = fixed.tokens if fixed else "sequence_length"
        self.masks: Mapping[int | None, str] = {}  # by window
        self._places = places
        self._turns = {id(one): self._turn(n, one) for n, one in enumerate(decoder.rotations)}
        self._longer = self._scales()
        # What is cached stays apart from what is new, so that none of it is copied or turned, where
        # it is much and lies evenly: of other sizes DeepSparse dies, by no rule that was found.
        past, uneven = fixed.past if fixed else 0, decoder.head_width % ALIGNED
        self._apart = past >= MUCH and not past % ALIGNED and not uneven

    def spell(self, index: int, block: Block, hidden: str, cache: tuple[str, ...]) -> list[str]:
        """What attention gives, and the keys and values to hand out."""
        sheet, decoder, width = self.sheet, self.decoder, self.decoder.head_width
        rows = [heads * width for heads in (decoder.heads, decoder.key_heads, decoder.key_heads)]
        asked = [self.linear(hidden, matrix) for matrix in block.asking]
        query, key, value = cut(sheet, asked, rows)
        query, key = self._split(query, decoder.heads), self._split(key, decoder.key_heads)
        value, name = self._split(value, decoder.key_heads), f"blocks.{index}"
        query = normed(sheet, query, f"{name}.q_norm", block.q_norm, decoder.epsilon)
        key = normed(sheet, key, f"{name}.k_norm", block.k_norm, decoder.epsilon)
        query, key = (self._rotate(heads, block.rotation) for heads in (query, key))
        query = sheet.op("Mul", query, sheet.constant(decoder.scale, np.float32))
        if self._longer:
            query = sheet.op("Mul", query, self._longer)
        keys, values, mask = key, value, self.masks[block.window]
        if cache and not self._apart:
            keys = sheet.op("Concat", cache[0], key, axis=2)
            values = sheet.op("Concat", cache[1], value, axis=2)
            cache = ()
        if self.fixed:
            heads = self._attend_folded(query, keys, values, cache, mask)
        else:
            heads = self._attend(query, keys, values, mask)
        joined = sheet.op("Transpose", heads, perm=[0, 2, 1, 3])
        flat = sheet.op("Reshape", joined, self._shape(self.tokens, decoder.heads * width))
        made = self.linear(flat, block.o)
        return [made, key, value] if self.fixed else [made, keys, values]

    def _turn(self, number: int, rotation: Rotation) -> tuple[str, str, int]:
        """Cosines and sines at the positions read, [rows, 1, tokens, width], and that width."""
        prefix = f"rotary_{number}" if number else "rotary"
        cos, sin = (
            self._at_places(f"{prefix}.{name}", table, [1])
            for name, table in (("cos", rotation.cos), ("sin", rotation.sin))
        )
        return cos, sin, rotation.cos.shape[-1]

    def _scales(self) -> str:
        """By what queries grow, [rows, 1, tokens, 1]; '' for nothing."""
        scale = self.decoder.query_scale
        return "" if scale is None else self._at_places("query_scale", scale, [1, 3])

    def _at_places(self, name: str, table: Tensor, axes: list[int]) -> str:
        sheet = self.sheet
        known = sheet.weight(name, np.float32, table.shape, lambda: table)
        found = sheet.op("Gather", known, self._places)
        return sheet.op("Unsqueeze", found, sheet.constant(axes, np.int64))

    def _attend(self, query: str, keys: str, values: str, mask: str) -> str:
        """Every head over its own copy of its keys and values."""
        sheet = self.sheet
        turned = sheet.op("Transpose", self._spread(keys), perm=[0, 1, 3, 2])
        weights = self._weights(sheet.op("MatMul", query, turned), mask)
        return sheet.op("MatMul", weights, self._spread(values))

    def _attend_folded(
        self, query: str, keys: str, values: str, cache: tuple[str, ...], mask: str
    ) -> str:
        """Heads of one key head below one another, so that no key or value is copied; `cache` are
        keys and values that come before these and stay apart."""
        sheet, decoder, fixed = self.sheet, self.decoder, self.fixed
        assert fixed is not None
        whole, below = fixed.past + fixed.tokens, decoder.heads // decoder.key_heads * fixed.tokens
        width = decoder.head_width
        query = self._fold(query, decoder.key_heads, below, width)
        here = fixed.tokens if cache else whole
        scores = sheet.op("MatMul", query, self._turned(keys, here, width))
        if cache:
            seen = sheet.op("MatMul", cache[0], self._turned(query, below, width))
            scores = sheet.op("Concat", self._turned(seen, fixed.past, below), scores, axis=-1)
        weights = self._weights(self._fold(scores, decoder.heads, fixed.tokens, whole), mask)
        weights = self._fold(weights, decoder.key_heads, below, whole)
        if cache:
            before, after = cut(sheet, [weights], [fixed.past, fixed.tokens])
            heads = sheet.op("MatMul", after, values)
            heads = sheet.op("Add", sheet.op("MatMul", before, cache[1]), heads)
        else:
            heads = sheet.op("MatMul", weights, values)
        return self._fold(heads, decoder.heads, fixed.tokens, width)

    def _turned(self, x: str, rows: int, columns: int) -> str:
        """[1, key heads, rows, columns] -> [1, key heads, columns, rows]."""
        if 1 not in (rows, columns):
            return self.sheet.op("Transpose", x, perm=[0, 1, 3, 2])
        shape = self.sheet.constant([1, self.decoder.key_heads, columns, rows], np.int64)
        return self.sheet.op("Reshape", x, shape)

    def _weights(self, scores: str, mask: str) -> str:
        sheet = self.sheet
        scores = capped(sheet, scores, self.decoder.score_cap, tanh=self.fixed is None)
        return sheet.op("Softmax", sheet.op("Add", scores, mask), axis=-1)

    def _fold(self, x: str, *shape: int) -> str:
        if self.decoder.heads == self.decoder.key_heads:
            return x
        return self.sheet.op("Reshape", x, self.sheet.constant([1, *shape], np.int64))

    def _split(self, joined: str, heads: int) -> str:
        """[rows, tokens, heads * head width] -> [rows, heads, tokens, head width]."""
        if self.tokens == 1:  # turned by a Transpose, DeepSparse dies of narrow heads
            shape = self.sheet.constant([1, heads, 1, self.decoder.head_width], np.int64)
            return self.sheet.op("Reshape", joined, shape)
        shape = self._shape(self.tokens, heads, self.decoder.head_width)
        return self.sheet.op(
            "Transpose", self.sheet.op("Reshape", joined, shape), perm=[0, 2, 1, 3]
        )

    def _shape(self, second: int | str, *rest: int) -> str:
        """A Reshape's target: the first axis and, where it may be any, the second stay."""
        return self.sheet.constant([0, 0 if isinstance(second, str) else second, *rest], np.int64)

    def _rotate(self, heads: str, rotation: Rotation | None) -> str:
        """Rotary position embedding: each half of what turns, turns with the other."""
        if rotation is None:
            return heads
        sheet, (cos, sin, width) = self.sheet, self._turns[id(rotation)]
        behind = self.decoder.head_width - width
        first, rest = heads, ""
        if behind:
            first = part(sheet, heads, 0, width, axis=3)
            rest = part(sheet, heads, width, self.decoder.head_width, axis=3)
        low, high = (
            part(sheet, first, start, start + width // 2, axis=3) for start in (0, width // 2)
        )
        turned = sheet.op("Concat", sheet.op("Neg", high), low, axis=-1)
        made = sheet.op("Add", sheet.op("Mul", first, cos), sheet.op("Mul", turned, sin))
        return sheet.op("Concat", made, rest, axis=-1) if behind else made

    def _spread(self, grouped: str) -> str:
        """Gives every query head its key head: [rows, key heads, n, w] -> [rows, heads, n, w]."""
        sheet, decoder = self.sheet, self.decoder
        each = decoder.heads // decoder.key_heads
        if each == 1:
            return grouped
        apart = sheet.op("Unsqueeze", grouped, sheet.constant([2], np.int64))
        wide = sheet.op("Expand", apart, sheet.constant([1, 1, each, 1, 1], np.int64))
        return sheet.op("Reshape", wide, self._shape(decoder.heads, -1, decoder.head_width))
