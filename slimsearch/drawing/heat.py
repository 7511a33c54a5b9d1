"""Tables of numbers as shades, side by side over the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slimsearch.drawing.scene import GAP, SIZE, WIDTH, Mark, Rect, Scene, Word, width_of

CELL, SMALL = 20, 10.5
PALEST, DARKEST = 0.04, 0.92  # opacities of the least and the greatest value
INKY = 0.66  # the opacity from which letters are as light as the paper
STEPS = 24  # of the scale below


@dataclass(frozen=True)
class HeatMap:
    """`values` by row, then column, from 0 (pale) to 1 (dark); None where there is none."""

    title: str
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    shown: Sequence[Sequence[str]]  # written into each cell
    ends: tuple[str, str]  # what the least and the greatest shade stand for
    colour: str = "blue"


def heat(maps: Sequence[HeatMap], rows: Sequence[str], width: float = WIDTH) -> Scene:
    """Heat maps beside one another; `rows` are named once, on the left."""
    left = max((width_of(row, SMALL + 1) for row in rows), default=0) + 8
    columns = sum(len(one.columns) for one in maps)
    cell = (width - left - GAP * (len(maps) - 1)) / max(columns, 1)
    top, bottom = 46, 46 + CELL * len(rows)
    marks: list[Mark] = [
        Word(left - 6, top + CELL * place + 14, row, "end", SMALL + 1, colour="soft")
        for place, row in enumerate(rows)
    ]
    x = left
    for one in maps:
        marks.append(Word(x, 14, one.title, bold=True, size=SIZE + 1))
        marks += _cells(one, rows, x, top, cell)
        marks += _scale(one, x, bottom + 12, cell * len(one.columns))
        x += cell * len(one.columns) + GAP
    about = " ".join(f"{one.title}, by {' and '.join(one.columns)}." for one in maps)
    return Scene(width, bottom + 40, tuple(marks), about)


def shade(value: float) -> float:
    """The opacity that stands for a value from 0 to 1."""
    return PALEST + (DARKEST - PALEST) * min(max(value, 0.0), 1.0)


def _cells(one: HeatMap, rows: Sequence[str], x: float, top: float, cell: float) -> list[Mark]:
    marks: list[Mark] = [
        Word(x + cell * (place + 0.5), top - 6, name, "middle", SMALL, colour="soft")
        for place, name in enumerate(one.columns)
    ]
    for row, (values, texts) in enumerate(zip(one.values, one.shown, strict=True)):
        for column, (value, text) in enumerate(zip(values, texts, strict=True)):
            if value is None:
                continue
            left, y, dark = x + cell * column, top + CELL * row, shade(value)
            title = f"{rows[row]} {one.columns[column]}: {text}"
            marks.append(Rect(left, y, cell - 1, CELL - 1, one.colour, dark, title))
            if width_of(text, SMALL) < cell:
                ink = "paper" if dark > INKY else "ink"
                marks.append(Word(left + cell / 2, y + 14, text, "middle", SMALL, colour=ink))
    return marks


def _scale(one: HeatMap, x: float, y: float, width: float) -> list[Mark]:
    """From the least shade to the greatest, with what they stand for."""
    marks: list[Mark] = [
        Rect(x + width * step / STEPS, y, width / STEPS, 6, one.colour, shade(step / (STEPS - 1)))
        for step in range(STEPS)
    ]
    marks.append(Word(x, y + 19, one.ends[0], size=SMALL + 0.5, colour="soft"))
    marks.append(Word(x + width, y + 19, one.ends[1], "end", SMALL + 0.5, colour="soft"))
    return marks
