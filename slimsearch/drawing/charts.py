"""Points and curves over two axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, log2, log10

from slimsearch.drawing.colours import SERIES, SHAPES
from slimsearch.drawing.scene import GAP, SIZE, WIDTH, Dot, Line, Mark, Scene, Word, width_of

HEIGHT = 210  # of the field between the axes
ROW = 18  # a line of the legend
SMALL = 11
FEW = 8  # values on an axis that are all written out
RADIUS = 3.5


@dataclass(frozen=True)
class Series:
    """Points of one look; `joined` draws a line through them, left to right.

    Without a colour and a shape it gets those of its place among the others.
    """

    name: str
    points: Sequence[tuple[float, float]]
    joined: bool = True
    colour: str = ""
    shape: str = ""
    hollow: bool = False
    dotted: bool = True  # the points are drawn
    dashed: bool = False
    opacity: float = 1.0
    radii: Sequence[float] = ()  # one for each point, else all alike
    titles: Sequence[str] = ()  # what a pointer over each point is told
    labels: Sequence[str] = ()  # written beside each point


@dataclass(frozen=True)
class Chart:
    """One pair of axes. `doubling` spaces x so that each doubling is as wide as any other;
    `bare` leaves the numbers off and scales both axes alike, where only distances count; `most` is
    the highest y shown."""

    title: str
    across: str
    up: str
    series: Sequence[Series]
    doubling: bool = False
    bare: bool = False
    most: float | None = None


def plot(chart: Chart, width: float = WIDTH, height: float = HEIGHT) -> Scene:
    """A chart as a scene: title and legend above, axes below."""
    spaced = log2 if chart.doubling else float
    points = [(x, _capped(y, chart.most)) for series in chart.series for x, y in series.points]
    ticks = [] if chart.bare else _ticks([y for _, y in points], few=0)
    written = _written(ticks)
    left = 14 if chart.bare else 14 + max((width_of(text, SMALL) for text in written), default=0)
    marks, top = _head(chart, width)
    bottom = top + height
    across = _Axis([spaced(x) for x, _ in points], left, width - 14)
    up = _Axis([y for _, y in points], bottom, top)
    if chart.bare:
        across.scale_like(up)
    for value, text in zip(ticks, written, strict=True):
        y = up.place(value)
        marks.append(Line(((left, y), (width - 6, y)), "line"))
        marks.append(Word(left - 6, y + 4, text, "end", SMALL, colour="soft"))
    marks.append(Line(((left, bottom), (width - 6, bottom)), "soft"))
    if not chart.bare:
        marks += _numbered([x for x, _ in points], lambda x: across.place(spaced(x)), bottom + 16)
    marks.append(Word((left + width) / 2, bottom + 34, chart.across, "middle", colour="soft"))
    for index, series in enumerate(chart.series):
        marks += _drawn(
            series, index, lambda x: across.place(spaced(x)), up.place, chart.most, width
        )
    about = f"{chart.title}: {chart.up} against {chart.across}."
    return Scene(width, bottom + 40, tuple(marks), about)


def _head(chart: Chart, width: float) -> tuple[list[Mark], float]:
    """Title, the name of the upright axis, and the legend; where the field begins."""
    marks: list[Mark] = [
        Word(0, 14, chart.title, bold=True, size=SIZE + 1),
        Word(0, 32, chart.up, colour="soft"),
    ]
    x, y = 6.0, 52.0
    named = [(place, series) for place, series in enumerate(chart.series) if series.name]
    for place, series in named:
        wide = 14 + width_of(series.name) + GAP
        if x > 6 and x + wide > width:
            x, y = 6.0, y + ROW
        colour, shape = _look(series, place)
        if series.dotted:
            marks.append(Dot(x, y - 4, RADIUS, colour, shape, series.hollow))
        else:
            marks.append(Line(((x - 5, y - 4), (x + 5, y - 4)), colour, 2, series.dashed))
        marks.append(Word(x + 10, y, series.name))
        x += wide
    return marks, (y if named else 32) + 16


def _drawn(
    series: Series,
    index: int,
    across: Callable[[float], float],
    up: Callable[[float], float],
    most: float | None,
    width: float,
) -> list[Mark]:
    colour, shape = _look(series, index)
    placed = [(across(x), up(_capped(y, most))) for x, y in series.points]
    marks: list[Mark] = []
    if series.joined and len(placed) > 1:
        marks.append(Line(tuple(sorted(placed)), colour, 2, series.dashed))
    for place, (x, y) in enumerate(placed if series.dotted else ()):
        radius = series.radii[place] if series.radii else RADIUS
        title = series.titles[place] if series.titles else ""
        beyond = most is not None and series.points[place][1] > most
        marks.append(
            Dot(x, y, radius, colour, "triangle" if beyond else shape, series.hollow,
                series.opacity, title)
        )  # fmt: skip
        if series.labels:
            text = series.labels[place]
            fits = x + 8 + width_of(text, SMALL) < width
            marks.append(
                Word(x + (7 if fits else -7), y - 6, text, "start" if fits else "end", SMALL)
            )
    return marks


def _numbered(values: Sequence[float], across: Callable[[float], float], y: float) -> list[Word]:
    """The numbers below the lower axis: each value's own, unless they would touch."""
    for few in (FEW, 0):
        ticks = _ticks(values, few)
        texts = _written(ticks)
        places = [across(value) for value in ticks]
        wide = max((width_of(text, SMALL) for text in texts), default=0) + 6
        if all(b - a >= wide for a, b in pairwise(places)):
            break
    return [
        Word(x, y, text, "middle", SMALL, colour="soft")
        for x, text in zip(places, texts, strict=True)
    ]


def _look(series: Series, index: int) -> tuple[str, str]:
    place = index % len(SERIES)
    return series.colour or SERIES[place], series.shape or SHAPES[place]


def _capped(y: float, most: float | None) -> float:
    return y if most is None else min(y, most)


class _Axis:
    """Where values stand between two pixels, with a little room at both ends."""

    def __init__(self, values: Sequence[float], start: float, stop: float):
        low, high = min(values, default=0.0), max(values, default=1.0)
        room = (high - low) * 0.05 or 0.5
        self._low, self._span = low - room, high - low + 2 * room
        self._start, self._stop = start, stop

    def scale_like(self, other: _Axis) -> None:
        """Widens the range of one of both until a pixel is as much on either."""
        mine, theirs = (abs(a._stop - a._start) / a._span for a in (self, other))
        narrow, ratio = (self, mine / theirs) if mine > theirs else (other, theirs / mine)
        narrow._low -= narrow._span * (ratio - 1) / 2
        narrow._span *= ratio

    def place(self, value: float) -> float:
        return self._start + (self._stop - self._start) * (value - self._low) / self._span


def _ticks(values: Sequence[float], few: int = FEW) -> list[float]:
    """The values themselves where they are few, else round numbers among them."""
    found = sorted(set(values))
    if len(found) <= few or len(found) < 2:
        return found
    span = found[-1] - found[0]
    step = 10 ** floor(log10(span / 3))
    step *= next(factor for factor in (5, 2, 1) if span / (step * factor) >= 2.5)
    first = floor(found[0] / step)
    count = floor(span / step) + 3
    grid = [round((first + index) * step, 12) for index in range(count)]
    return [value for value in grid if found[0] <= value <= found[-1]]


def _written(ticks: Sequence[float]) -> list[str]:
    """Numbers of an axis, alike in their decimals, as long as tells them apart."""
    for digits in range(4, 9):
        texts = [f"{value:.{digits}g}" for value in ticks]
        if len(set(texts)) < len(texts):
            continue
        if any("e" in text for text in texts):
            return texts
        decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
        return [f"{value:.{decimals}f}" for value in ticks]
    return [f"{value:g}" for value in ticks]
