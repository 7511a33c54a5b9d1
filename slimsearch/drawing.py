"""Curves as SVG, written by hand: axes, lines, points and a legend need no drawing library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log2, log10

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LEGEND = 320, 220, 70, 40, 50, 18  # pixels
COLOURS = ("#3a5fa0", "#b0672f", "#2f7d5b", "#8a4fa0", "#8a8f98", "#a03a4a")
FEW = 8  # values on an axis that are all written out


@dataclass(frozen=True)
class Series:
    """Points of one colour; `joined` draws a line through them, left to right."""

    name: str
    points: Sequence[tuple[float, float]]
    joined: bool = True


@dataclass(frozen=True)
class Chart:
    """One pair of axes. `doubling` spaces x so that each doubling is as wide as any other."""

    title: str
    across: str
    up: str
    series: Sequence[Series]
    doubling: bool = False


def svg(charts: Sequence[Chart]) -> str:
    """Charts side by side."""
    wide = LEFT + WIDTH + 30
    longest = max((len(chart.series) for chart in charts), default=0)
    high = TOP + HEIGHT + BOTTOM + LEGEND * longest + 10
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide * len(charts)}" height="{high}" '
        f'font-family="sans-serif" font-size="12">'
    )
    drawn = [
        f'<g transform="translate({wide * place},0)">\n{_chart(chart)}\n</g>'
        for place, chart in enumerate(charts)
    ]
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *drawn, "</svg>\n"])


def _chart(chart: Chart) -> str:
    points = [point for series in chart.series for point in series.points]
    spaced = log2 if chart.doubling else float
    across = _Axis([spaced(x) for x, _ in points], LEFT, LEFT + WIDTH)
    up = _Axis([y for _, y in points], TOP + HEIGHT, TOP)
    lines = [_text(LEFT, TOP - 18, chart.title, "start", "bold")]
    lines += [
        f'<path d="M{LEFT} {TOP}V{TOP + HEIGHT}H{LEFT + WIDTH}" fill="none" stroke="#444"/>',
        _text(LEFT + WIDTH / 2, TOP + HEIGHT + 38, chart.across, "middle"),
        f'<g transform="translate(14,{TOP + HEIGHT / 2}) rotate(-90)">'
        f"{_text(0, 0, chart.up, 'middle')}</g>",
    ]
    for value in _ticks([x for x, _ in points]):
        lines.append(_text(across.place(spaced(value)), TOP + HEIGHT + 18, f"{value:g}", "middle"))
    for value in _ticks([y for _, y in points], few=0):
        lines.append(_text(LEFT - 8, up.place(value) + 4, f"{value:g}", "end"))
        lines.append(f'<path d="M{LEFT} {up.place(value):.1f}h{WIDTH}" stroke="#ddd"/>')
    for index, series in enumerate(chart.series):
        colour = COLOURS[index % len(COLOURS)]
        placed = sorted((across.place(spaced(x)), up.place(y)) for x, y in series.points)
        if series.joined and placed:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
            lines.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y in placed:
            lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
        y = TOP + HEIGHT + BOTTOM + LEGEND * index + 8
        lines.append(f'<rect x="{LEFT}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        lines.append(_text(LEFT + 16, y, series.name, "start"))
    return "\n".join(lines)


class _Axis:
    """Where values stand between two pixels, with a little room at both ends."""

    def __init__(self, values: Sequence[float], start: float, stop: float):
        low, high = min(values, default=0.0), max(values, default=1.0)
        room = (high - low) * 0.05 or 0.5
        self._low, self._span = low - room, high - low + 2 * room
        self._start, self._stop = start, stop

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


def _text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
