"""How a decoder's blocks run: which tokens pass by what, what runs side by side, what sees what.

A Route has a Step for every block. Families each say a part of it, and `|` puts parts together:
what one takes away, another does not bring back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slimsearch.errors import ModelError
from slimsearch.routes.kinds import PICTURE, PROMPT, TEXT

Kinds = frozenset[int]  # token classes, as batch has them
NONE: Kinds = frozenset()
PICTURES: Kinds = frozenset({PICTURE})
TOKENS: Mapping[str, Kinds] = {  # as the skipping paper calls them
    "T": frozenset({TEXT}),
    "P+T": frozenset({PICTURE, PROMPT, TEXT}),
}
EVERY = TOKENS["P+T"]
COMBINED = ("mean", "sum")  # as the skipping paper's code does it, and as its text says
_LETTERS = {PICTURE: "V", PROMPT: "P", TEXT: "T"}


@dataclass(frozen=True)
class Step:
    """What one block does. Tokens that pass it by are neither computed nor kept in its cache."""

    skip_block: Kinds = NONE
    skip_attention: Kinds = NONE
    skip_ffn: Kinds = NONE
    parallel_ffn: bool = False  # the FFN reads what the block reads, not what attention gave
    parallel_next: str = ""  # it and the next block read the same; how their work is combined
    window: int | None = None  # of pictures' tokens that one of them sees before it; None: all

    def __or__(self, other: Step) -> Step:
        windows = [step.window for step in (self, other) if step.window is not None]
        return Step(
            self.skip_block | other.skip_block,
            self.skip_attention | other.skip_attention,
            self.skip_ffn | other.skip_ffn,
            self.parallel_ffn or other.parallel_ffn,
            self.parallel_next or other.parallel_next,
            min(windows, default=None),
        )

    def lacks_attention(self, kinds: Kinds = EVERY) -> bool:
        """Whether no token of these kinds goes through the block's attention."""
        return kinds <= self.skip_block | self.skip_attention

    def lacks_ffn(self, kinds: Kinds = EVERY) -> bool:
        return kinds <= self.skip_block | self.skip_ffn


@dataclass(frozen=True)
class Merge:
    """PruMerge: how outlying a picture's token must be to stay, and how many stay regardless."""

    keep: float = 1.5  # times the interquartile range above the upper quartile
    plus: int = 0  # 1: as many again, spread evenly over the picture (PruMerge+)


@dataclass(frozen=True)
class Route:
    steps: tuple[Step, ...]
    merge: Merge | None = None

    def __bool__(self) -> bool:
        """Whether anything is other than in the model as it came."""
        return self.merge is not None or any(step != Step() for step in self.steps)

    def __or__(self, other: Route) -> Route:
        steps = tuple(a | b for a, b in zip(self.steps, other.steps, strict=True))
        return Route(steps, other.merge or self.merge)

    def without_skipped(self) -> Route:
        """What is left to do where blocks that every token skips are not there at all."""
        return Route(tuple(self.steps[index] for index in self.kept), self.merge)

    @property
    def kept(self) -> tuple[int, ...]:
        """The blocks that some token goes through. One that is read beside another stays."""
        beside = {i + n for i, step in enumerate(self.steps) if step.parallel_next for n in (0, 1)}
        return tuple(
            index
            for index, step in enumerate(self.steps)
            if index in beside or not step.skip_block >= EVERY
        )

    def as_json(self) -> dict[str, Any]:
        """As slimsearch.json has it: what is out of the ordinary, by block."""
        blocks = {}
        for index, step in enumerate(self.steps):
            told = {
                name: "".join(_LETTERS[kind] for kind in sorted(value))
                if isinstance(value, frozenset) else value
                for name, value in vars(step).items()
                if value != getattr(Step(), name)
            }  # fmt: skip
            if told:
                blocks[str(index)] = told
        merge = {} if self.merge is None else {"merge": asdict(self.merge)}
        return {"blocks": blocks, **merge}


def plain(blocks: int) -> Route:
    """A model as it came."""
    return Route((Step(),) * blocks)


def together(edits: Iterable[Mapping[str, Any]], blocks: Sequence[str]) -> Route:
    """The route that several families' edits make; those of weights are none of it."""
    found = plain(len(blocks))
    for some in edits:
        steps = tuple(
            step if isinstance(step := some.get(name), Step) else Step() for name in blocks
        )
        found |= Route(steps, next((e for e in some.values() if isinstance(e, Merge)), None))
    return found


def from_json(told: Any, blocks: int, origin: str) -> Route:
    """What `as_json` gave, for a model of so many blocks."""
    try:
        steps = [Step()] * blocks
        kinds = {letter: kind for kind, letter in _LETTERS.items()}
        for index, said in told["blocks"].items():
            step: dict[str, Any] = {
                name: frozenset(kinds[letter] for letter in value)
                if name.startswith("skip_") else value
                for name, value in said.items()
            }  # fmt: skip
            steps[range(blocks)[int(index)]] = Step(**step)
        return Route(tuple(steps), Merge(**told["merge"]) if "merge" in told else None)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{origin} says how the model's blocks run, and that cannot be read: {error!r}. "
            f"Restore it, or prune the model again."
        ) from None
