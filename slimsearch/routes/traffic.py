"""What a decoder block does with the tokens that it is given, on a route: how many meet what.

A prompt's tokens are all read at once; a generated one is read by itself, its keys beside those
that the block has kept. Everything that a model spends follows from one Traffic for each block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slimsearch.routes.kinds import PICTURE, PROMPT, TEXT
from slimsearch.routes.route import Route, Step


@dataclass(frozen=True)
class Traffic:
    """`visual` and `text` tokens go through the block's attention, `fed` through its FFN; `past`
    keys lie in its cache."""

    visual: int
    text: int
    fed: int
    past: int = 0
    window: int | None = None  # visual tokens before it that a visual one sees; None: everything
    span: int | None = None  # tokens that the model itself lets one see, where it slides

    @property
    def tokens(self) -> int:
        """Whose keys and values are computed, also where they see nothing else."""
        return self.visual + self.text

    @property
    def asking(self) -> int:
        """Whose queries are computed, where they are not made in one with keys and values."""
        return self.text if self.window == 0 else self.tokens

    @property
    def pairs(self) -> int:
        """Queries times the keys that each is held against; masks save nothing."""
        seen = self.past + self.tokens
        if self.window is None:
            return self.tokens * seen
        near = min(self.visual, self.window + 1) if self.window else 0
        return self.text * seen + self.visual * near

    @property
    def cached(self) -> int:
        """Keys that the block keeps once it has read these tokens."""
        kept = self.past + self.tokens
        return kept if self.span is None else min(kept, self.span - 1)


Spans = Sequence[int | None]  # of each block
ATTENTION = ("q", "k", "v", "qkv", "o")  # roles of matrices; the others are the FFN's


def prompt(route: Route, spans: Spans, visual: int, text: int) -> list[Traffic]:
    """The traffic of each block that reads a prompt."""
    tokens = {PICTURE: visual, PROMPT: text}
    return [_traffic(step, tokens, 0, span) for step, span in zip(route.steps, spans, strict=True)]


def token(route: Route, read: Sequence[Traffic]) -> list[Traffic]:
    """The traffic of each block that reads the first generated token behind a prompt."""
    return [
        _traffic(step, {TEXT: 1}, before.cached, before.span)
        for step, before in zip(route.steps, read, strict=True)
    ]


def _traffic(step: Step, tokens: Mapping[int, int], past: int, span: int | None) -> Traffic:
    asked = {k: n for k, n in tokens.items() if k not in step.skip_block | step.skip_attention}
    fed = {k: n for k, n in tokens.items() if k not in step.skip_block | step.skip_ffn}
    visual = asked.pop(PICTURE, 0)
    return Traffic(visual, sum(asked.values()), sum(fed.values()), past, step.window, span)
