"""Marks on a sheet, measured in pixels from its upper left corner; colours are names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

WIDTH = 400  # of a chart: read without zooming on a phone, and beside text on a desk
SIZE = 12  # of letters
LETTER = 0.56  # how wide a letter is, in its size, about
GAP = 16
MARGIN = 14  # around a scene that is a file by itself


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    width: float
    height: float
    colour: str
    opacity: float = 1.0
    title: str = ""  # what a pointer over it is told


@dataclass(frozen=True)
class Line:
    """Straight pieces through these points."""

    points: tuple[tuple[float, float], ...]
    colour: str
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Dot:
    """circle, square, diamond, triangle or cross; `hollow` is drawn as an outline."""

    x: float
    y: float
    radius: float
    colour: str
    shape: str = "circle"
    hollow: bool = False
    opacity: float = 1.0
    title: str = ""


@dataclass(frozen=True)
class Word:
    """A line of text on its baseline; `anchor` is start, middle or end."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    size: float = SIZE
    bold: bool = False
    colour: str = "ink"


Mark = Rect | Line | Dot | Word


@dataclass(frozen=True)
class Scene:
    """`about` says in words what is to be seen, for those who cannot see it."""

    width: float
    height: float
    marks: tuple[Mark, ...]
    about: str = ""


def below(scenes: Sequence[Scene]) -> Scene:
    """Scenes one under the other."""
    marks: list[Mark] = []
    y = 0.0
    for scene in scenes:
        marks += [_moved(mark, 0, y) for mark in scene.marks]
        y += scene.height + GAP
    width = max((scene.width for scene in scenes), default=WIDTH)
    return Scene(width, max(y - GAP, GAP), tuple(marks), _about(scenes))


def beside(scenes: Sequence[Scene]) -> Scene:
    """Scenes from left to right."""
    marks: list[Mark] = []
    x = 0.0
    for scene in scenes:
        marks += [_moved(mark, x, 0) for mark in scene.marks]
        x += scene.width + GAP
    height = max((scene.height for scene in scenes), default=GAP)
    return Scene(max(x - GAP, GAP), height, tuple(marks), _about(scenes))


def framed(scene: Scene) -> Scene:
    """A scene with a margin around it."""
    marks = tuple(_moved(mark, MARGIN, MARGIN) for mark in scene.marks)
    return replace(
        scene, width=scene.width + 2 * MARGIN, height=scene.height + 2 * MARGIN, marks=marks
    )


def width_of(text: str, size: float = SIZE) -> float:
    """About how wide a text is drawn."""
    return len(text) * size * LETTER


def _moved(mark: Mark, x: float, y: float) -> Mark:
    if isinstance(mark, Line):
        return replace(mark, points=tuple((a + x, b + y) for a, b in mark.points))
    return replace(mark, x=mark.x + x, y=mark.y + y)


def _about(scenes: Sequence[Scene]) -> str:
    return " ".join(scene.about for scene in scenes if scene.about)
