"""A bar chart as SVG, written by hand: a dozen rectangles need no drawing library."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

ROW, GAP, LABEL, BAR, NUMBER, TITLE = 18, 14, 260, 360, 120, 30  # pixels
COLOURS = ("#8a8f98", "#2f7d5b", "#b0672f", "#3a5fa0")


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    shown: str  # the number as it is written behind the bar
    colour: int = 0  # which of COLOURS


@dataclass(frozen=True)
class Group:
    """Bars on one scale, under one heading."""

    title: str
    bars: Sequence[Bar]


def svg(groups: Sequence[Group]) -> str:
    """Groups of horizontal bars below one another; in each the longest bar is full width."""
    width = LABEL + BAR + NUMBER
    lines: list[str] = []
    y = GAP
    for group in groups:
        lines.append(f'<text x="8" y="{y + 14}" font-weight="bold">{escape(group.title)}</text>')
        y += TITLE
        longest = max((bar.value for bar in group.bars), default=0.0) or 1.0
        for bar in group.bars:
            length = max(1, round(BAR * bar.value / longest))
            middle = y + ROW - 5
            lines += [
                f'<text x="{LABEL - 8}" y="{middle}" text-anchor="end">{escape(bar.label)}</text>',
                f'<rect x="{LABEL}" y="{y}" width="{length}" height="{ROW - 4}" '
                f'fill="{COLOURS[bar.colour % len(COLOURS)]}"/>',
                f'<text x="{LABEL + length + 6}" y="{middle}">{escape(bar.shown)}</text>',
            ]
            y += ROW
        y += GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" '
        f'font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *lines, "</svg>\n"])
