"""A scene as PNG, drawn by pillow at a multiple of its size and shrunk: smooth, on light paper.

Pillow is there already, for the pictures. Its built-in letters need no font on the machine, but are
only Latin ones: the SVG has them all.
"""

from functools import cache
from io import BytesIO
from itertools import pairwise
from math import dist

from PIL import Image, ImageDraw, ImageFont

from slimsearch.drawing.colours import COLOURS
from slimsearch.drawing.scene import Dot, Line, Rect, Scene, Word, framed
from slimsearch.drawing.svg import outline

SCALE = 2  # pixels of the file for one of the scene
FINER = 2  # drawn so many times as large, then shrunk
ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def png(scene: Scene) -> bytes:
    """The scene as a file's content."""
    scene = framed(scene)
    size = round(scene.width * SCALE), round(scene.height * SCALE)
    sheet = Image.new("RGB", (size[0] * FINER, size[1] * FINER), COLOURS["paper"][0])
    pen = ImageDraw.Draw(sheet, "RGBA")
    for mark in scene.marks:
        if isinstance(mark, Word):
            _word(pen, mark)
        elif isinstance(mark, Line):
            _line(pen, mark)
        elif isinstance(mark, Rect):
            x, y = _at(mark.x, mark.y)
            corner = _at(mark.x + mark.width, mark.y + mark.height)
            pen.rectangle((x, y, *corner), fill=_colour(mark.colour, mark.opacity))
        else:
            _dot(pen, mark)
    content = BytesIO()
    sheet.resize(size, Image.Resampling.BOX).save(content, "PNG", optimize=True)
    return content.getvalue()


def _word(pen: ImageDraw.ImageDraw, word: Word) -> None:
    stroke = round(word.size * SCALE * FINER / 40) if word.bold else 0
    pen.text(
        _at(word.x, word.y), word.text, fill=_colour(word.colour), anchor=ANCHORS[word.anchor],
        font=_font(round(word.size * SCALE * FINER)), stroke_width=stroke,
    )  # fmt: skip


def _line(pen: ImageDraw.ImageDraw, line: Line) -> None:
    width = max(1, round(line.width * SCALE * FINER))
    points = [_at(x, y) for x, y in line.points]
    if not line.dashed:
        pen.line(points, fill=_colour(line.colour), width=width, joint="curve")
        return
    on, period = 4.0 * SCALE * FINER, 7.0 * SCALE * FINER
    for (ax, ay), (bx, by) in pairwise(points):
        length = dist((ax, ay), (bx, by)) or 1.0
        for step in range(int(length // period) + 1):
            start, stop = step * period / length, min((step * period + on) / length, 1.0)
            ends = [(ax + (bx - ax) * t, ay + (by - ay) * t) for t in (start, stop)]
            pen.line(ends, fill=_colour(line.colour), width=width)


def _dot(pen: ImageDraw.ImageDraw, dot: Dot) -> None:
    colour, width = _colour(dot.colour, dot.opacity), round(1.5 * SCALE * FINER)
    if dot.shape == "circle":
        corners = (*_at(dot.x - dot.radius, dot.y - dot.radius),
                   *_at(dot.x + dot.radius, dot.y + dot.radius))  # fmt: skip
        if dot.hollow:
            pen.ellipse(corners, outline=colour, width=width)
        else:
            pen.ellipse(corners, fill=colour)
        return
    for stroke in outline(dot):
        points = [_at(x, y) for x, y in stroke]
        if dot.shape == "cross":
            pen.line(points, fill=colour, width=width)
        elif dot.hollow:
            pen.line([*points, points[0], points[1]], fill=colour, width=width, joint="curve")
        else:
            pen.polygon(points, fill=colour)


def _at(x: float, y: float) -> tuple[float, float]:
    return x * SCALE * FINER, y * SCALE * FINER


def _colour(name: str, opacity: float = 1.0) -> tuple[int, int, int, int]:
    red, green, blue = bytes.fromhex(COLOURS[name][0][1:])
    return red, green, blue, round(255 * opacity)


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
