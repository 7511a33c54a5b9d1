"""A decoder spelled out as a graph: RMSNorm, rotary attention over a key-value cache, gated MLP.

Free, it reads any number of rows, tokens and cached tokens, named as ONNX exports of transformers
commonly are. Fixed, it reads exactly so many, for an engine that compiles a graph for its shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from slimsearch.graphs.anatomy import Block, Decoder, Matrix
from slimsearch.graphs.linear import Linear, dense, to_numpy
from slimsearch.graphs.sheet import Shape, Sheet

HIDDEN = -1e9  # added to a score that must not count; finite, so that a row may hide everything
# A fixed graph's matrices have a multiple of so many columns, filled up with zeros: of others
# DeepSparse's sparse kernels make wrong numbers, and say nothing.
FILL = 16
TAIL = (0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429)  # of t, t^2 and on


@dataclass(frozen=True)
class Fixed:
    """The shapes of a fixed graph, which reads one row.

    Inputs: inputs_embeds [1, tokens, width], position_ids [1, tokens], mask [1, 1, tokens,
    past + tokens] (0 for what may be attended to, a large negative number for what may not) and,
    unless `past` is 0, past_key_values.N.key and .value [1, key heads, past, head width].
    Outputs: logits [1, 1, vocabulary] of the last token, present.N.key and .value of the new
    tokens alone, [1, key heads, tokens, head width].
    """

    tokens: int
    past: int


def build(decoder: Decoder, fixed: Fixed | None = None, linear: Linear = dense) -> Sheet:
    """The graph of a decoder, free unless shapes are given.

    Free, its inputs are inputs_embeds [rows, tokens, width], attention_mask [rows, past + tokens],
    position_ids [rows, tokens] and past_key_values.N.key and .value [rows, key heads, past, head
    width], where past may be 0; its outputs are logits [rows, tokens, vocabulary] and present.N.key
    and .value [rows, key heads, past + tokens, head width]. A key counts when attention_mask is not
    0 there and it does not stand behind the query.
    """
    return _Writer(decoder, fixed, linear).write()


def embedding(decoder: Decoder) -> Sheet:
    """input_ids [rows, tokens] -> inputs_embeds [rows, tokens, width]."""
    sheet = Sheet("embed_tokens")
    ids = sheet.input("input_ids", np.int64, ("rows", "tokens"))
    table = sheet.weight(
        "embed_tokens.weight", np.float32, decoder.embedding.shape,
        lambda: to_numpy(decoder.embedding),
    )  # fmt: skip
    found = sheet.op("Gather", table, ids)
    sheet.output("inputs_embeds", found, np.float32, ("rows", "tokens", decoder.width))
    return sheet


class _Writer:
    def __init__(self, decoder: Decoder, fixed: Fixed | None, linear: Linear):
        self.decoder, self.fixed = decoder, fixed
        self.sheet = Sheet("decoder")
        self.linear = linear
        self.filled: dict[str, str] = {}  # what goes into matrices -> that with zeros behind it
        self.rows: int | str = 1 if fixed else "batch_size"
        self.tokens: int | str = fixed.tokens if fixed else "sequence_length"
        self.past: int | str = fixed.past if fixed else "past_sequence_length"
        self.whole: int | str = fixed.past + fixed.tokens if fixed else "total_sequence_length"

    def write(self) -> Sheet:
        sheet, decoder = self.sheet, self.decoder
        hidden = sheet.input(
            "inputs_embeds", np.float32, (self.rows, self.tokens, decoder.width)
        )  # [rows, tokens, width]
        given = self._mask_input()
        self.cos, self.sin = self._rotation()
        caches = [self._cache_inputs(index) for index in range(len(decoder.blocks))]
        self.mask = given if self.fixed else self._mask(given, hidden)
        news: list[list[str]] = []
        aside, combine = "", ""  # what the block before made, which this one runs beside
        for index, (block, cache) in enumerate(zip(decoder.blocks, caches, strict=True)):
            made, new = self._block(index, block, hidden, cache)
            news.append(new)
            if combine:
                made = sheet.op("Add", made, aside)
            if combine == "mean":
                made = sheet.op("Mul", made, sheet.constant(0.5, np.float32))
            if combine == "sum":
                made = sheet.op("Sub", made, hidden)
            aside, combine = made, block.step.parallel_next
            hidden = hidden if combine else made
        self._outputs(hidden, news)
        return sheet

    def _block(
        self, index: int, block: Block, hidden: str, cache: tuple[str, ...]
    ) -> tuple[str, list[str]]:
        """What a block gives, and the keys and values to hand out, none where it attends not."""
        sheet, step = self.sheet, block.step
        made, new = hidden, []
        if not step.lacks_attention():
            attended, *new = self._attention(
                block,
                self._norm(hidden, f"blocks.{index}.before_attention", block.before_attention),
                cache,
            )
            made = sheet.op("Add", hidden, attended)
        if not step.lacks_ffn():
            read = hidden if step.parallel_ffn else made
            normed = self._norm(read, f"blocks.{index}.before_mlp", block.before_mlp)
            made = sheet.op("Add", made, self._mlp(block, normed))
        return made, new

    def _mask_input(self) -> str:
        if self.fixed:
            return self.sheet.input("mask", np.float32, (1, 1, self.tokens, self.whole))
        return self.sheet.input("attention_mask", np.int64, (self.rows, self.whole))

    def _rotation(self) -> tuple[str, str]:
        """Cosines and sines at the positions read, [rows, 1, tokens, head width]."""
        places = self.sheet.input("position_ids", np.int64, (self.rows, self.tokens))
        return self._rotated_by("cos", self.decoder.cos, places), self._rotated_by(
            "sin", self.decoder.sin, places
        )

    def _rotated_by(self, name: str, table: Tensor, places: str) -> str:
        sheet = self.sheet
        known = sheet.weight(f"rotary.{name}", np.float32, table.shape, lambda: to_numpy(table))
        found = sheet.op("Gather", known, places)
        return sheet.op("Unsqueeze", found, sheet.constant([1], np.int64))

    def _cache_inputs(self, index: int) -> tuple[str, ...]:
        if self.past == 0 or self.decoder.blocks[index].step.lacks_attention():
            return ()
        shape = self._cache_shape(self.past)
        return tuple(
            self.sheet.input(f"past_key_values.{index}.{kind}", np.float32, shape)
            for kind in ("key", "value")
        )

    def _cache_shape(self, length: int | str) -> Shape:
        return (self.rows, self.decoder.key_heads, length, self.decoder.head_width)

    def _mask(self, given: str, hidden: str) -> str:
        """0 where a query may look and HIDDEN where not, [rows, 1, tokens, past + tokens]."""
        sheet = self.sheet
        zero, one = (sheet.constant(n, np.int64) for n in (0, 1))
        end = self._length(given, 1)
        past = sheet.op("Sub", end, self._length(hidden, 1))
        query = sheet.op(
            "Unsqueeze", sheet.op("Range", past, end, one), sheet.constant([1], np.int64)
        )
        before = sheet.op("LessOrEqual", sheet.op("Range", zero, end, one), query)
        real = sheet.op("Cast", given, to=self.sheet.onnx.TensorProto.BOOL)
        real = sheet.op("Unsqueeze", real, sheet.constant([1, 2], np.int64))
        seen = sheet.op("And", real, before)
        return sheet.op(
            "Where", seen, sheet.constant(0, np.float32), sheet.constant(HIDDEN, np.float32)
        )

    def _length(self, of: str, axis: int) -> str:
        shape = self.sheet.op("Shape", of)
        return self.sheet.op("Gather", shape, self.sheet.constant(axis, np.int64))

    def _norm(self, hidden: str, name: str, scale: Tensor) -> str:
        """RMSNorm."""
        sheet = self.sheet
        square = sheet.op("Pow", hidden, sheet.constant(2, np.float32))
        mean = sheet.op("ReduceMean", square, axes=[-1], keepdims=1)
        epsilon = sheet.constant(self.decoder.epsilon, np.float32)
        root = sheet.op("Sqrt", sheet.op("Add", mean, epsilon))
        weight = sheet.weight(f"{name}.weight", np.float32, scale.shape, lambda: to_numpy(scale))
        return sheet.op("Mul", sheet.op("Div", hidden, root), weight)

    def _attention(self, block: Block, hidden: str, cache: tuple[str, ...]) -> list[str]:
        """What attention gives, and the keys and values to hand out."""
        sheet, decoder = self.sheet, self.decoder
        query = self._rotate(self._split(self._linear(hidden, block.q), decoder.heads))
        scale = sheet.constant(decoder.head_width**-0.5, np.float32)
        query = sheet.op("Mul", query, scale)
        key = self._rotate(self._split(self._linear(hidden, block.k), decoder.key_heads))
        value = self._split(self._linear(hidden, block.v), decoder.key_heads)
        keys, values = (
            (
                sheet.op("Concat", old, new, axis=2)
                for old, new in zip(cache, (key, value), strict=True)
            )
            if cache
            else (key, value)
        )
        heads = (self._attend_folded if self.fixed else self._attend)(query, keys, values)
        joined = sheet.op("Transpose", heads, perm=[0, 2, 1, 3])
        flat = sheet.op(
            "Reshape", joined, self._shape(self.tokens, decoder.heads * decoder.head_width)
        )
        made = self._linear(flat, block.o)
        return [made, key, value] if self.fixed else [made, keys, values]

    def _attend(self, query: str, keys: str, values: str) -> str:
        """Every head over its own copy of its keys and values."""
        sheet = self.sheet
        turned = sheet.op("Transpose", self._spread(keys), perm=[0, 1, 3, 2])
        scores = sheet.op("Add", sheet.op("MatMul", query, turned), self.mask)
        return sheet.op("MatMul", sheet.op("Softmax", scores, axis=-1), self._spread(values))

    def _attend_folded(self, query: str, keys: str, values: str) -> str:
        """Heads of one key head below one another, so that no key or value is copied."""
        sheet, decoder, fixed = self.sheet, self.decoder, self.fixed
        assert fixed is not None
        whole, below = fixed.past + fixed.tokens, decoder.heads // decoder.key_heads * fixed.tokens
        keys = sheet.op("Transpose", keys, perm=[0, 1, 3, 2])
        query = self._fold(query, decoder.key_heads, below, decoder.head_width)
        scores = sheet.op("MatMul", query, keys)
        scores = self._fold(scores, decoder.heads, fixed.tokens, whole)
        weights = sheet.op("Softmax", sheet.op("Add", scores, self.mask), axis=-1)
        weights = self._fold(weights, decoder.key_heads, below, whole)
        heads = sheet.op("MatMul", weights, values)
        return self._fold(heads, decoder.heads, fixed.tokens, decoder.head_width)

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

    def _rotate(self, heads: str) -> str:
        """Rotary position embedding: each half turns with the other."""
        sheet, half = self.sheet, self.decoder.head_width // 2

        def part(start: int, end: int) -> str:
            edges = (sheet.constant([n], np.int64) for n in (start, end, 3))
            return sheet.op("Slice", heads, *edges)

        turned = sheet.op("Concat", sheet.op("Neg", part(half, 2 * half)), part(0, half), axis=-1)
        return sheet.op("Add", sheet.op("Mul", heads, self.cos), sheet.op("Mul", turned, self.sin))

    def _spread(self, grouped: str) -> str:
        """Gives every query head its key head: [rows, key heads, n, w] -> [rows, heads, n, w]."""
        sheet, decoder = self.sheet, self.decoder
        each = decoder.heads // decoder.key_heads
        if each == 1:
            return grouped
        apart = sheet.op("Unsqueeze", grouped, sheet.constant([2], np.int64))
        wide = sheet.op("Expand", apart, sheet.constant([1, 1, each, 1, 1], np.int64))
        return sheet.op("Reshape", wide, self._shape(decoder.heads, -1, decoder.head_width))

    def _linear(self, given: str, matrix: Matrix) -> str:
        lacking = -matrix.weight.shape[1] % FILL if self.fixed else 0
        if not lacking:
            return self.linear(self.sheet, given, matrix)
        if given not in self.filled:
            tokens = 1 if matrix is self.decoder.head else self.tokens
            zeros = self.sheet.constant(np.zeros((1, int(tokens), lacking)), np.float32)
            self.filled[given] = self.sheet.op("Concat", given, zeros, axis=-1)
        return self.linear(self.sheet, self.filled[given], replace(matrix, blank=lacking))

    def _mlp(self, block: Block, hidden: str) -> str:
        gate = self._activated(self._linear(hidden, block.gate))
        return self._linear(self.sheet.op("Mul", gate, self._linear(hidden, block.up)), block.down)

    def _activated(self, x: str) -> str:
        sheet, kind = self.sheet, self.decoder.activation
        if kind == "relu":
            return sheet.op("Relu", x)
        if kind == "silu":
            return sheet.op("Mul", x, sheet.op("Sigmoid", x))
        if kind == "gelu" and self.fixed:
            return self._gelu_without_erf(x)
        half, one = (sheet.constant(n, np.float32) for n in (0.5, 1))
        if kind == "gelu":
            bent = sheet.op("Erf", sheet.op("Mul", x, sheet.constant(0.5**0.5, np.float32)))
        else:  # its approximation by tanh
            cube = sheet.op("Pow", x, sheet.constant(3, np.float32))
            cube = sheet.op("Mul", cube, sheet.constant(0.044715, np.float32))
            inner = sheet.op(
                "Mul", sheet.op("Add", x, cube), sheet.constant((2 / np.pi) ** 0.5, np.float32)
            )
            bent = sheet.op("Tanh", inner)
        return sheet.op("Mul", sheet.op("Mul", x, half), sheet.op("Add", bent, one))

    def _gelu_without_erf(self, x: str) -> str:
        """max(x, 0) - |x| Q(|x|), for DeepSparse has no Erf. Q, what a normal distribution has
        beyond a place, is by Abramowitz and Stegun, 26.2.17, off by 7.5e-8 at most."""
        sheet = self.sheet

        def number(value: float) -> str:
            return sheet.constant(value, np.float32)

        square = sheet.op("Mul", x, x)
        size = sheet.op("Sqrt", square)
        slope = sheet.op("Mul", size, number(0.2316419))
        t = sheet.op("Div", number(1), sheet.op("Add", slope, number(1)))
        tail = sheet.op("Mul", t, number(TAIL[-1]))
        for share in reversed(TAIL[:-1]):
            tail = sheet.op("Mul", sheet.op("Add", tail, number(share)), t)
        density = sheet.op("Exp", sheet.op("Mul", square, number(-0.5)))
        beyond = sheet.op("Mul", sheet.op("Mul", tail, density), number((2 * np.pi) ** -0.5))
        return sheet.op("Sub", sheet.op("Relu", x), sheet.op("Mul", size, beyond))

    def _outputs(self, hidden: str, news: list[list[str]]) -> None:
        sheet, read = self.sheet, self.tokens
        normed = self._norm(hidden, "norm", self.decoder.norm)
        if self.fixed and isinstance(read, int) and read > 1:
            # Behind the norm, for before it DeepSparse dies, compiling or running; and not by
            # Gather, behind which it dies of an int8 head.
            edges = (sheet.constant([n], np.int64) for n in (read - 1, read, 1))
            normed, read = sheet.op("Slice", normed, *edges), 1
        logits = self._linear(normed, self.decoder.head)
        vocabulary = self.decoder.head.weight.shape[0]
        sheet.output("logits", logits, np.float32, (self.rows, read, vocabulary))
        shape = self._cache_shape(self.tokens if self.fixed else self.whole)
        for index, new in enumerate(news):
            for kind, made in zip(("key", "value"), new, strict=bool(new)):
                sheet.output(f"present.{index}.{kind}", made, np.float32, shape)
