"""A scene as SVG: each mark has its light colour, and a class by which rules can darken it."""

from html import escape

from slimsearch.drawing.colours import COLOURS, rules
from slimsearch.drawing.scene import Dot, Line, Mark, Rect, Scene, Word, framed

FONTS = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


def svg(scene: Scene, alone: bool = True) -> str:
    """`alone`: a file by itself, with paper and rules; else a part of a page that has them."""
    scene = framed(scene) if alone else scene
    wide, high = f"{scene.width:g}", f"{scene.height:g}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" '
        f'height="{high}" font-family="{FONTS}" role="img" aria-label="{escape(scene.about)}">'
    )
    paper: list[str] = []
    if alone:
        paper = [
            f"<title>{escape(scene.about)}</title>",
            f"<style>{rules()}</style>",
            f'<rect width="{wide}" height="{high}" {_fill("paper")}/>',
        ]
    return "\n".join([head, *paper, *map(_mark, scene.marks), "</svg>\n"])


def _mark(mark: Mark) -> str:
    if isinstance(mark, Word):
        return _word(mark)
    if isinstance(mark, Line):
        return _line(mark)
    return _rect(mark) if isinstance(mark, Rect) else _dot(mark)


def _word(word: Word) -> str:
    weight = ' font-weight="600"' if word.bold else ""
    anchor = "" if word.anchor == "start" else f' text-anchor="{word.anchor}"'
    return (
        f'<text x="{_n(word.x)}" y="{_n(word.y)}" font-size="{word.size:g}"{anchor}{weight} '
        f"{_fill(word.colour)}>{escape(word.text)}</text>"
    )


def _line(line: Line) -> str:
    path = "L".join(f"{_n(x)} {_n(y)}" for x, y in line.points)
    dashes = ' stroke-dasharray="4 3"' if line.dashed else ""
    return f'<path d="M{path}" fill="none" {_stroke(line.colour, line.width)}{dashes}/>'


def _rect(rect: Rect) -> str:
    opacity = "" if rect.opacity >= 1 else f' fill-opacity="{rect.opacity:.3f}"'
    place = f'x="{_n(rect.x)}" y="{_n(rect.y)}" width="{_n(rect.width)}"'
    return _titled(
        "rect", f'{place} height="{_n(rect.height)}" {_fill(rect.colour)}{opacity}', rect.title
    )


def _dot(dot: Dot) -> str:
    outlined = dot.hollow or dot.shape == "cross"
    look = f'fill="none" {_stroke(dot.colour, 1.5)}' if outlined else _fill(dot.colour)
    if dot.opacity < 1:
        look += f' opacity="{dot.opacity:.3f}"'
    if dot.shape == "circle":
        place = f'cx="{_n(dot.x)}" cy="{_n(dot.y)}" r="{_n(dot.radius)}"'
        return _titled("circle", f"{place} {look}", dot.title)
    strokes = outline(dot)
    path = "".join(f"M{'L'.join(f'{_n(x)} {_n(y)}' for x, y in stroke)}" for stroke in strokes)
    closed = "" if dot.shape == "cross" else "Z"
    return _titled("path", f'd="{path}{closed}" {look}', dot.title)


def outline(dot: Dot) -> list[list[tuple[float, float]]]:
    """The corners of a dot that is no circle; two strokes for a cross."""
    x, y, r = dot.x, dot.y, dot.radius
    s = r * 0.9
    return {
        "square": [[(x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s)]],
        "diamond": [[(x, y - r * 1.25), (x + r * 1.25, y), (x, y + r * 1.25), (x - r * 1.25, y)]],
        "triangle": [[(x, y - r * 1.2), (x + r * 1.1, y + r * 0.8), (x - r * 1.1, y + r * 0.8)]],
        "cross": [[(x - s, y - s), (x + s, y + s)], [(x - s, y + s), (x + s, y - s)]],
    }[dot.shape]


def _titled(tag: str, attributes: str, title: str) -> str:
    if not title:
        return f"<{tag} {attributes}/>"
    return f"<{tag} {attributes}><title>{escape(title)}</title></{tag}>"


def _fill(colour: str) -> str:
    return f'class="f-{colour}" fill="{COLOURS[colour][0]}"'


def _stroke(colour: str, width: float) -> str:
    return f'class="s-{colour}" stroke="{COLOURS[colour][0]}" stroke-width="{width:g}"'


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
