"""What a decoder block does with the tokens that it is given; families take from it.

A prompt's tokens are all read at once; a generated one is read by itself, its keys beside those
that the block has kept. Everything that a model spends follows from one Work for each block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """`visual` and `text` tokens are in the block's sequence, `past` ones in its cache."""

    visual: int
    text: int
    past: int = 0
    generated: bool = False  # one token that the model says, not its prompt
    attends: bool = True  # attention is computed
    feeds: bool = True  # the FFN is computed
    window: int | None = None  # visual tokens before it that a visual one sees; None: everything
    span: int | None = None  # tokens that the model itself lets one see, where it slides

    @property
    def tokens(self) -> int:
        return self.visual + self.text

    @property
    def queries(self) -> int:
        """Tokens that ask; one that sees itself alone is given its own value, unasked."""
        return self.attends * (self.text if self.window == 0 else self.tokens)

    @property
    def keys(self) -> int:
        """Tokens whose keys and values are computed."""
        return self.attends * self.tokens

    @property
    def fed(self) -> int:
        """Tokens that pass the FFN."""
        return self.feeds * self.tokens

    @property
    def pairs(self) -> int:
        """Queries times the keys that each is held against; masks save nothing."""
        seen = self.past + self.tokens
        if self.window is None:
            return self.attends * self.tokens * seen
        near = min(self.visual, self.window + 1) if self.window else 0
        return self.attends * (self.text * seen + self.visual * near)

    @property
    def cached(self) -> int:
        """Keys that the block keeps once it has read these tokens."""
        kept = self.past + self.tokens
        return self.attends * (kept if self.span is None else min(kept, self.span - 1))


Spans = Sequence[int | None]  # of each block
Spare = Callable[[Work, int], Work]  # what is left of a block's work, by the block's number


def all_of_it(work: Work, _: int) -> Work:
    """Nothing is spared."""
    return work


def prompt(spans: Spans, visual: int, text: int, spare: Spare) -> list[Work]:
    """The work of each block that reads a prompt."""
    return [spare(Work(visual, text, span=span), block) for block, span in enumerate(spans)]


def token(read: list[Work], spare: Spare) -> list[Work]:
    """The work of each block that reads the first generated token behind a prompt."""
    return [
        spare(Work(0, 1, past=before.cached, generated=True, span=before.span), block)
        for block, before in enumerate(read)
    ]
