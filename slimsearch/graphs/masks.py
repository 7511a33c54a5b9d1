"""Which tokens a query may look at: inputs of a fixed graph, worked out inside a free one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from slimsearch.graphs.sheet import Sheet

HIDDEN = -1e9  # added to a score that must not count; finite, so that a row may hide everything
MASK, GROUPS = "mask", "groups"


@dataclass(frozen=True)
class Fixed:
    """The shapes of a fixed graph, which reads one row.

    Inputs: inputs_embeds [1, tokens, width], position_ids [1, tokens], mask [1, 1, tokens,
    past + tokens] (0 for what may be attended to, a large negative number for what may not), one
    more such mask_W for each width W of windows and, unless `past` is 0, past_key_values.N.key and
    .value [1, key heads, past, head width].
    Outputs: logits [1, 1, vocabulary] of the last token, present.N.key and .value of the new
    tokens alone, [1, key heads, tokens, head width].
    """

    tokens: int
    past: int


def name_of(window: int | None) -> str:
    """A fixed graph's input for blocks with such a window."""
    return MASK if window is None else f"{MASK}_{window}"


def given(sheet: Sheet, fixed: Fixed, windows: Sequence[int | None]) -> dict[int | None, str]:
    """The inputs of a fixed graph."""
    shape = (1, 1, fixed.tokens, fixed.past + fixed.tokens)
    return {window: sheet.input(name_of(window), np.float32, shape) for window in windows}


def arrays(fixed: Fixed, windows: Sequence[int | None], blank: int = 0) -> dict[str, ndarray]:
    """What a fixed graph is given where everything is read in order, past and new, behind `blank`
    places of padding."""
    whole = fixed.past + fixed.tokens
    queries, keys = np.arange(fixed.past, whole)[:, None], np.arange(whole)
    found = {}
    for window in windows:
        seen = (keys <= queries) & (keys > queries - (window or whole)) & (keys >= blank)
        found[name_of(window)] = np.where(seen, np.float32(0), np.float32(HIDDEN))[None, None]
    return found


class Drawn:
    """Masks out of attention_mask [rows, past + tokens] and, where tokens of a group see each
    other, groups [rows, past + tokens]: a number for each group, 0 for tokens of none."""

    def __init__(self, sheet: Sheet, hidden: str, grouped: bool):
        self.sheet = sheet
        rows, whole = "batch_size", "total_sequence_length"
        attended = sheet.input("attention_mask", np.int64, (rows, whole))
        groups = sheet.input(GROUPS, np.int64, (rows, whole)) if grouped else ""
        zero, one = (sheet.constant(n, np.int64) for n in (0, 1))
        self._end = self._length(attended)
        self._past = sheet.op("Sub", self._end, self._length(hidden))
        self._keys = sheet.op("Range", zero, self._end, one)
        self._queries = self._apart(sheet.op("Range", self._past, self._end, one), 1)
        real = sheet.op("Cast", attended, to=sheet.onnx.TensorProto.BOOL)
        self._real = self._apart(real, 1, 2)
        self._together = self._same(groups) if grouped else ""

    def mask(self, window: int | None) -> str:
        """0 where a query may look and HIDDEN where not, [rows, 1, tokens, past + tokens]."""
        sheet = self.sheet
        seen = sheet.op("LessOrEqual", self._keys, self._queries)
        if window is not None:
            edge = sheet.op("Sub", self._queries, sheet.constant(window, np.int64))
            seen = sheet.op("And", seen, sheet.op("Greater", self._keys, edge))
        if self._together:
            seen = sheet.op("Or", seen, self._together)
        seen = sheet.op("And", self._real, seen)
        shown, hidden = (sheet.constant(n, np.float32) for n in (0, HIDDEN))
        return sheet.op("Where", seen, shown, hidden)

    def _same(self, groups: str) -> str:
        """Whether query and key are of one group, [rows, 1, tokens, past + tokens]."""
        sheet, axis = self.sheet, self.sheet.constant([1], np.int64)
        edges = (self._apart(edge, 0) for edge in (self._past, self._end))
        asking = self._apart(sheet.op("Slice", groups, *edges, axis), 1, 3)
        same = sheet.op("Equal", asking, self._apart(groups, 1, 2))
        return sheet.op("And", same, sheet.op("Greater", asking, sheet.constant(0, np.int64)))

    def _apart(self, x: str, *axes: int) -> str:
        return self.sheet.op("Unsqueeze", x, self.sheet.constant(list(axes), np.int64))

    def _length(self, of: str) -> str:
        shape = self.sheet.op("Shape", of)
        return self.sheet.op("Gather", shape, self.sheet.constant(1, np.int64))
