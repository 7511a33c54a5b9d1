"""The page around the chapters: no script, no font and no file from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from slimsearch.drawing.colours import COLOURS, rules
from slimsearch.reporting import sections
from slimsearch.reporting.markup import Chapter, Html, join, rendered, tag
from slimsearch.reporting.story import Story
from slimsearch.version import __version__


def whole(stories: Sequence[Story], opening: Chapter | None, chapters: Sequence[Chapter]) -> str:
    """The HTML of a report."""
    title = f"{len(stories)} pruning searches"
    if opening is None:
        title = f"Pruning {stories[0].settings.ratio:.0%} of {stories[0].model}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} - slimsearch report"),
        tag("style", Html(_style())),
    )
    top = tag(
        "header",
        tag("p", "slimsearch report", class_="kind"),
        tag("h1", title),
    )
    words = tag("section", tag("h2", "The words"), sections.glossary(), id="words")
    if opening is None:
        pieces = chapters[0].body
        told = [piece for piece in pieces if not isinstance(piece, Chapter)]
        linked = [piece for piece in pieces if isinstance(piece, Chapter)]
        body = [*map(rendered, told), words, *map(rendered, linked)]
    else:
        linked = [opening, *chapters]
        body = [rendered(opening), words, *map(rendered, chapters)]
    contents = tag(
        "nav",
        *(tag("a", chapter.title, href=f"#{chapter.anchor}") for chapter in linked),
        aria_label="Contents",
    )
    foot = tag("footer", tag("p", f"Written by slimsearch {__version__}."))
    main = tag("main", top, contents, *body, foot)
    return f'<!DOCTYPE html>\n<html lang="en">{head}{tag("body", main)}</html>\n'


def _style() -> str:
    """The colours of the figures as variables, then the rules."""
    light, dark = (
        ";".join(f"--{name}:{pair[place]}" for name, pair in COLOURS.items()) for place in (0, 1)
    )
    variables = f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    sheet = resources.files("slimsearch.reporting").joinpath("style.css").read_text("utf-8")
    return join(Html(variables), Html(rules()), Html(sheet))
