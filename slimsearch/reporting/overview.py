"""Several runs beside one another; of one alone there is nothing to say here."""

from __future__ import annotations

from collections.abc import Sequence

from slimsearch.reporting import findings
from slimsearch.reporting.markup import Chapter, Figure, Html, join, missing, paragraph, table
from slimsearch.reporting.story import Story
from slimsearch.reporting.words import FIGURES, duration, figure
from slimsearch.settings import strategy_of


def opening(stories: Sequence[Story]) -> Chapter:
    """A row for every run's champion, and what each lost."""
    keys = [
        key for key in FIGURES
        if any(key in row.figures for story in stories for row in story.rows)
    ]  # fmt: skip
    columns = ("run", "model", "goal", "strategy", "zeros",
               *(FIGURES[key][0] for key in keys), "time")  # fmt: skip
    rows = [_row(story, keys) for story in stories]
    body: list[Html | Figure] = [
        paragraph(
            "Each row is the model that a run ended with, on data that it was not calibrated on; "
            "in brackets its own dense model. Runs with other models or data are not to be "
            "compared figure by figure."
        ),
        table(columns, rows),
    ]
    drawn = findings.trade_off(stories)
    if drawn is None:
        body.append(missing("No run has a dense model's figures to be held against."))
    else:
        caption = "What each run's champion lost against its dense model, beside uniform pruning."
        body.append(Figure("runs", drawn, join(caption)))
    return Chapter("runs", "The runs side by side", tuple(body))


def _row(story: Story, keys: Sequence[str]) -> list[str]:
    best, dense = story.searched, story.dense
    cells = []
    for key in keys:
        value = best.figures.get(key) if best else None
        was = dense.figures.get(key) if dense else None
        cells.append(f"{figure(key, value)} ({figure(key, was)})" if value is not None else
                     "not measured")  # fmt: skip
    spent = sum(story.times["stage"].values())
    return [
        story.name, story.model, f"{story.settings.ratio:.0%}", strategy_of(story.settings),
        f"{best.sparsity:.1%}" if best else "no champion", *cells,
        duration(spent) if spent else "not kept",
    ]  # fmt: skip
