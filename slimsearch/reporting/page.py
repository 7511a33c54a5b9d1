"""The page around the chapters: no script, no font and no file from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from slimsearch import files
from slimsearch.drawing import svg
from slimsearch.drawing.colours import COLOURS, rules
from slimsearch.drawing.png import png
from slimsearch.reporting import sections
from slimsearch.reporting.markup import Chapter, Figure, Html, join, rendered, tag
from slimsearch.reporting.story import Story
from slimsearch.version import __version__


def whole(stories: Sequence[Story], opening: Chapter | None, chapters: Sequence[Chapter]) -> str:
    """The HTML of a report."""
    words = tag("section", tag("h2", "The words"), sections.glossary(), id="words")
    if opening is not None or len(stories) != 1 or len(chapters) > 1:
        title = f"{len(stories)} pruning searches" if len(stories) > 1 else "Pruning searches"
        if len(chapters) == 1:
            title = f"Pruning {chapters[0].title}, compared"
        first = [opening] if opening is not None else []
        return page("slimsearch report", title, [], [*first, *chapters], words)
    pieces = chapters[0].body
    told = [rendered(piece) for piece in pieces if not isinstance(piece, Chapter)]
    linked = [piece for piece in pieces if isinstance(piece, Chapter)]
    title = f"Pruning {stories[0].settings.ratio:.0%} of {stories[0].model}"
    return page("slimsearch report", title, [*told, words], linked)


def page(
    kind: str, title: str, lead: Sequence[Html], chapters: Sequence[Chapter], *more: Html
) -> str:
    """The HTML of chapters: contents, what leads to them, they, and what follows."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} - {kind}"),
        tag("style", Html(_style())),
    )
    top = tag("header", tag("p", kind, class_="kind"), tag("h1", title))
    contents = tag(
        "nav",
        *(tag("a", chapter.title, href=f"#{chapter.anchor}") for chapter in chapters),
        aria_label="Contents",
    )
    foot = tag("footer", tag("p", f"Written by slimsearch {__version__}."))
    main = tag("main", top, contents, *lead, *map(rendered, chapters), *more, foot)
    return f'<!DOCTYPE html>\n<html lang="en">{head}{tag("body", main)}</html>\n'


def draw(figure: Figure, folder: Path) -> None:
    """A figure as SVG and as PNG."""
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / f"{figure.name}.svg", svg(figure.scene).encode())
    files.write(folder / f"{figure.name}.png", png(figure.scene))


def _style() -> str:
    """The colours of the figures as variables, then the rules."""
    light, dark = (
        ";".join(f"--{name}:{pair[place]}" for name, pair in COLOURS.items()) for place in (0, 1)
    )
    variables = f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    sheet = resources.files("slimsearch.reporting").joinpath("style.css").read_text("utf-8")
    return join(Html(variables), Html(rules()), Html(sheet))
