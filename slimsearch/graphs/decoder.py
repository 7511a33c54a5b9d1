"""A decoder spelled out as a graph: blocks over a key-value cache, and what stands around them.

Free, it reads any number of rows, tokens and cached tokens, named as ONNX exports of transformers
commonly are. Fixed, it reads exactly so many, for an engine that compiles a graph for its shapes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from slimsearch.graphs import masks
from slimsearch.graphs.anatomy import Block, Decoder, Matrix, Norm
from slimsearch.graphs.attention import Attention
from slimsearch.graphs.layers import activated, capped, cut, normed, part
from slimsearch.graphs.linear import Linear, dense
from slimsearch.graphs.masks import Fixed
from slimsearch.graphs.sheet import Shape, Sheet
from slimsearch.routes.route import EVERY

# A fixed graph's matrices have a multiple of so many columns, filled up with zeros: of others
# DeepSparse's sparse kernels make wrong numbers, and say nothing.
FILL = 16


def build(decoder: Decoder, fixed: Fixed | None = None, linear: Linear = dense) -> Sheet:
    """The graph of a decoder, free unless shapes are given.

    Free, its inputs are inputs_embeds [rows, tokens, width], attention_mask [rows, past + tokens],
    position_ids [rows, tokens] and past_key_values.N.key and .value [rows, key heads, past, head
    width], where past may be 0; its outputs are logits [rows, tokens, vocabulary] and present.N.key
    and .value [rows, key heads, past + tokens, head width]. A key counts when attention_mask is not
    0 there and it does not stand behind the query; where tokens of a group see each other there is
    also groups (masks.Drawn).
    """
    return _Writer(decoder, fixed, linear).write()


def filled(matrix: Matrix) -> Matrix:
    """A matrix as a fixed graph holds it."""
    return replace(matrix, blank=-matrix.weight.shape[1] % FILL)


def embedding(decoder: Decoder) -> Sheet:
    """input_ids [rows, tokens] -> inputs_embeds [rows, tokens, width]."""
    sheet = Sheet("embed_tokens")
    ids = sheet.input("input_ids", np.int64, ("rows", "tokens"))
    table = sheet.weight(
        "embed_tokens.weight", np.float32, decoder.embedding.shape, lambda: decoder.embedding
    )  # fmt: skip
    found = sheet.op("Gather", table, ids)
    if decoder.embedding_scale != 1:
        found = sheet.op("Mul", found, sheet.constant(decoder.embedding_scale, np.float32))
    sheet.output("inputs_embeds", found, np.float32, ("rows", "tokens", decoder.width))
    return sheet


class _Writer:
    def __init__(self, decoder: Decoder, fixed: Fixed | None, linear: Linear):
        self.decoder, self.fixed = decoder, fixed
        self.sheet = Sheet("decoder")
        self._spelled = linear
        self.filled: dict[str, str] = {}  # what goes into matrices -> that with zeros behind it
        self.rows: int | str = 1 if fixed else "batch_size"
        self.tokens: int | str = fixed.tokens if fixed else "sequence_length"
        self.past: int | str = fixed.past if fixed else "past_sequence_length"
        self.whole: int | str = fixed.past + fixed.tokens if fixed else "total_sequence_length"

    def write(self) -> Sheet:
        sheet, decoder, fixed = self.sheet, self.decoder, self.fixed
        hidden = sheet.input(
            "inputs_embeds", np.float32, (self.rows, self.tokens, decoder.width)
        )  # [rows, tokens, width]
        if fixed:
            held = masks.given(sheet, fixed, decoder.windows)
        else:
            drawn = masks.Drawn(sheet, hidden, decoder.groups)
            held = {window: drawn.mask(window) for window in decoder.windows}
        places = sheet.input("position_ids", np.int64, (self.rows, self.tokens))
        self.attention = Attention(sheet, decoder, fixed, self.linear, places)
        self.attention.masks = held
        caches = [self._cache_inputs(index) for index in range(len(decoder.blocks))]
        hidden, news = self._blocks(self._enter(hidden, places), caches)
        self._outputs(hidden, news)
        return sheet

    def linear(self, given: str, matrix: Matrix) -> str:
        """What a matrix makes; in a fixed graph with zeros behind its columns, where they lack."""
        whole = filled(matrix) if self.fixed else matrix
        if not whole.blank:
            return self._spelled(self.sheet, given, matrix)
        if given not in self.filled:
            tokens = 1 if matrix.name in ("head", "exit") else self.tokens
            zeros = self.sheet.constant(np.zeros((1, int(tokens), whole.blank)), np.float32)
            self.filled[given] = self.sheet.op("Concat", given, zeros, axis=-1)
        return self._spelled(self.sheet, self.filled[given], whole)

    def _enter(self, hidden: str, places: str) -> str:
        """What goes into the first block."""
        sheet, decoder = self.sheet, self.decoder
        if decoder.entry is not None:
            hidden = self.linear(hidden, decoder.entry)
        if (table := decoder.places) is not None:
            known = sheet.weight("places", np.float32, table.shape, lambda: table)
            hidden = sheet.op("Add", hidden, sheet.op("Gather", known, places))
        return hidden

    def _blocks(self, hidden: str, caches: list[tuple[str, ...]]) -> tuple[str, list[list[str]]]:
        """What goes out of the last block, and each one's keys and values."""
        sheet, news = self.sheet, []
        aside, combine = "", ""  # what the block before made, which this one runs beside
        for index, (block, cache) in enumerate(zip(self.decoder.blocks, caches, strict=True)):
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
        return hidden, news

    def _block(
        self, index: int, block: Block, hidden: str, cache: tuple[str, ...]
    ) -> tuple[str, list[str]]:
        """What a block gives, and the keys and values to hand out, none where it attends not."""
        sheet, step = self.sheet, block.step
        norm = partial(self._norm, f"blocks.{index}.")
        made, new = hidden, []
        if step.skip_block >= EVERY:
            return made, new
        if not step.lacks_attention():
            read = norm("before_attention", hidden, block.before_attention)
            attended, *new = self.attention.spell(index, block, read, cache)
            attended = norm("after_attention", attended, block.after_attention)
            made = sheet.op("Add", hidden, attended)
        made = norm("closing_attention", made, block.closing_attention)
        if not step.lacks_ffn():
            read = norm("before_mlp", hidden if step.parallel_ffn else made, block.before_mlp)
            done = norm("after_mlp", self._mlp(block, read), block.after_mlp)
            made = sheet.op("Add", made, done)
        return norm("closing_mlp", made, block.closing_mlp), new

    def _norm(self, prefix: str, name: str, x: str, norm: Norm | None) -> str:
        return normed(self.sheet, x, f"{prefix}{name}", norm, self.decoder.epsilon)

    def _mlp(self, block: Block, hidden: str) -> str:
        sheet, inner = self.sheet, block.down.weight.shape[1]
        opened = [self.linear(hidden, matrix) for matrix in block.opening]
        first, *rest = cut(sheet, opened, [inner] * (2 if self.decoder.gated else 1))
        made = activated(sheet, first, self.decoder.activation, erf=self.fixed is None)
        for up in rest:
            made = sheet.op("Mul", made, up)
        return self.linear(made, block.down)

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

    def _outputs(self, hidden: str, news: list[list[str]]) -> None:
        sheet, decoder, read = self.sheet, self.decoder, self.tokens
        last = self._norm("", "norm", hidden, decoder.norm)
        if self.fixed and self.fixed.tokens > 1:
            # Behind the norm, for before it DeepSparse dies, compiling or running; and not by
            # Gather, behind which it dies of an int8 head.
            last, read = part(sheet, last, self.fixed.tokens - 1, self.fixed.tokens, axis=1), 1
        if decoder.exit is not None:
            last = self.linear(last, decoder.exit)
        logits = self.linear(last, decoder.head)
        logits = capped(sheet, logits, decoder.logit_cap, tanh=self.fixed is None)
        vocabulary = decoder.head.weight.shape[0]
        sheet.output("logits", logits, np.float32, (self.rows, read, vocabulary))
        shape = self._cache_shape(self.tokens if self.fixed else self.whole)
        for index, new in enumerate(news):
            for kind, made in zip(("key", "value"), new, strict=bool(new)):
                sheet.output(f"present.{index}.{kind}", made, np.float32, shape)
