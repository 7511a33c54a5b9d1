"""Horizontal bars in groups."""

from collections.abc import Sequence
from dataclasses import dataclass

from slimsearch.drawing.scene import GAP, SIZE, WIDTH, Mark, Rect, Scene, Word, width_of

ROW, THICK, TITLE = 20, 13, 26


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    shown: str  # the number as it is written behind the bar
    colour: str = "blue"


@dataclass(frozen=True)
class Group:
    """Bars on one scale, under one heading."""

    title: str
    bars: Sequence[Bar]


def bars(groups: Sequence[Group], width: float = WIDTH) -> Scene:
    """Groups below one another; in each the longest bar is full width."""
    every = [bar for group in groups for bar in group.bars]
    label = max((width_of(bar.label) for bar in every), default=0) + 8
    number = max((width_of(bar.shown) for bar in every), default=0) + 10
    width = max(width, label + number + 120)
    room = width - label - number
    marks: list[Mark] = []
    y = 0.0
    for group in groups:
        marks.append(Word(0, y + 14, group.title, bold=True, size=SIZE + 1))
        y += TITLE
        longest = max((bar.value for bar in group.bars), default=0.0) or 1.0
        for bar in group.bars:
            long = max(1.0, room * bar.value / longest)
            base = y + THICK - 3
            marks.append(Word(label - 8, base, bar.label, "end"))
            marks.append(Rect(label, y, long, THICK, bar.colour, title=f"{bar.label}: {bar.shown}"))
            marks.append(Word(label + long + 6, base, bar.shown))
            y += ROW
        y += GAP
    about = " ".join(f"{group.title}, as bars." for group in groups)
    return Scene(width, max(y - GAP, GAP), tuple(marks), about)
