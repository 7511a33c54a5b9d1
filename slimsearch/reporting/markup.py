"""HTML by hand: what is not markup already is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from slimsearch.drawing import Scene, svg

EMPTY = ("img", "meta")  # elements without an end


class Html(str):
    """Markup, to be taken as it is."""


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption; `name` is its files' name."""

    name: str
    scene: Scene
    caption: Html


@dataclass(frozen=True)
class Gallery:
    """Drawings side by side under one caption."""

    figures: tuple[Figure, ...]
    caption: Html


@dataclass(frozen=True)
class Chapter:
    """A part of a page: its anchor, its heading, what stands in it."""

    anchor: str
    title: str
    body: tuple[Piece, ...]

    @property
    def figures(self) -> list[Figure]:
        found: list[Figure] = []
        for piece in self.body:
            if isinstance(piece, Figure):
                found.append(piece)
            elif isinstance(piece, Chapter | Gallery):
                found += piece.figures
        return found


Piece = Html | Figure | Gallery | Chapter


def tag(name: str, /, *inside: str, **attributes: str) -> Html:
    """An element; a trailing underscore of an attribute's name falls away."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value
    )
    return Html(f"<{name}{given}>" if name in EMPTY else f"<{name}{given}>{join(*inside)}</{name}>")


def join(*pieces: str) -> Html:
    """Pieces one after the other; plain text among them is escaped."""
    return Html(
        "".join(piece if isinstance(piece, Html) else escape(piece, False) for piece in pieces)
    )


def paragraph(*inside: str) -> Html:
    return tag("p", *inside)


def missing(text: str) -> Html:
    """Says what is not at hand, and how it would be; what stands in `these` is code."""
    pieces = text.split("`")
    said = [tag("code", piece) if place % 2 else piece for place, piece in enumerate(pieces)]
    return tag("p", *said, class_="missing")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], strong: Sequence[int] = ()
) -> Html:
    """A table whose first column is text and whose others are figures; `strong` rows stand out."""
    head = tag("tr", *(tag("th", name, scope="col") for name in columns))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell) for cell in row[1:]),
            class_="strong" if place in strong else "",
        )
        for place, row in enumerate(rows)
    ]
    whole = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("div", whole, class_="scroll", tabindex="0")


def rendered(piece: Piece, level: int = 2) -> Html:
    """A piece of a page as markup."""
    if isinstance(piece, Html):
        return piece
    if isinstance(piece, Figure):
        return tag("figure", _drawn(piece), tag("figcaption", piece.caption))
    if isinstance(piece, Gallery):
        caption = tag("figcaption", piece.caption)
        return tag("figure", *map(_drawn, piece.figures), caption, class_="gallery")
    inside = [rendered(part, level + 1) for part in piece.body]
    return tag("section", tag(f"h{level}", piece.title), *inside, id=piece.anchor)


def _drawn(figure: Figure) -> Html:
    return tag("div", Html(svg(figure.scene, alone=False)), id=f"figure-{figure.name}")
