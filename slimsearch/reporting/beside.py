"""Dense, uniform and champion side by side: every figure that there is of all three."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slimsearch.record import results
from slimsearch.reporting.markup import Chapter, Html, missing, paragraph, table
from slimsearch.reporting.story import Story
from slimsearch.reporting.words import FIGURES, bounded, figure, listed, size, spelt

MODELS = (results.DENSE, results.UNIFORM, results.CHAMPION)
BENCHED = dict(zip(MODELS, ("against", "uniform", "export"), strict=True))  # as bench calls them
UNKNOWN = "not measured"

Cells = Mapping[str, str]  # by model; those that are not there were not measured


def beside(story: Story) -> Chapter | None:
    """One row a figure; None while nothing was measured."""
    if not story.rows:
        return None
    rows = [*_own(story), *_tasks(story), *_speeds(story), *_sizes(story)]
    body: list[Html] = [
        paragraph(
            "The dense model is what the run began with. Uniform pruning removes as much, the same "
            "share of every matrix, by the same solver and calibration. The champion is what the "
            "search found and trained. Where there are brackets, they hold the 95% interval."
        ),
        table(
            ("", *MODELS),
            [[name, *(cells.get(model, UNKNOWN) for model in MODELS)] for name, cells in rows],
        ),
    ]
    body += [missing(said) for said in _unsaid(story)]
    return Chapter("beside", "Dense, uniform and champion", tuple(body))


def _own(story: Story) -> Iterator[tuple[str, Cells]]:
    """What the run measured of itself."""
    rows = zip(MODELS, (story.dense, story.uniform, story.searched), strict=True)
    there = {model: row for model, row in rows if row is not None}
    zeros = {name: f"{row.sparsity:.1%}" for name, row in there.items()}
    yield "zeros in what may be pruned", zeros
    for key, (name, more) in FIGURES.items():
        cells = {
            model: figure(key, row.figures[key])
            for model, row in there.items() if key in row.figures
        }  # fmt: skip
        if cells:
            yield f"{name}, held-out data ({_better(more)})", cells


def _tasks(story: Story) -> Iterator[tuple[str, Cells]]:
    """The headline of every task."""
    for name, some in story.tasks.items():
        headline = some[0]["headline"]
        cells = {
            result["model"]["name"]: bounded(result["figures"][headline])
            for result in some if headline in result["figures"]
        }  # fmt: skip
        yield f"{name}, {spelt(headline)} ({_better(headline != 'perplexity')})", cells


def _speeds(story: Story) -> Iterator[tuple[str, Cells]]:
    """The fastest engine's time of the longest prompt, and its speed behind it."""
    rows = [row for bench in story.benches for row in bench["rows"]]
    if not rows:
        return
    longest = max(row["prompt"] for row in rows)
    rows = [row for row in rows if row["prompt"] == longest]
    for name, key, sign in (
        (f"milliseconds for a prompt of {longest} tokens (less is better)", "prefill_ms", 1),
        (f"tokens a second behind {longest} (more is better)", "decode_per_s", -1),
    ):
        cells = {}
        for model, benched in BENCHED.items():
            if mine := [row for row in rows if row["model"] == benched]:
                best = min(mine, key=lambda row: sign * row[key])
                cells[model] = f"{best[key]:.1f} ({best['engine']})"
        yield name, cells


def _sizes(story: Story) -> Iterator[tuple[str, Cells]]:
    if not story.scope:
        return
    cells = {results.DENSE: size(story.whole)}
    for model, row in ((results.UNIFORM, story.uniform), (results.CHAMPION, story.searched)):
        if row is not None:
            cells[model] = size(story.packed(row.sparsity))
    yield "size without the zeros", cells


def _unsaid(story: Story) -> Iterator[str]:
    """What is missing of the three, and the command that fills it in."""
    if story.history.end is None:
        return
    lacking = [
        name for name, some in story.tasks.items()
        if not set(MODELS) <= {result["model"]["name"] for result in some}
    ]  # fmt: skip
    ask = f"`slimsearch eval {story.folder} --task TASK --data DATA --against dense,uniform`"
    if not story.tasks:
        yield f"No benchmark was asked: {ask} asks all three."
    elif lacking:
        yield f"Not every model was asked {listed(lacking)}: {ask} asks all three."
    if not story.benches:
        yield f"Speed was not measured: `slimsearch bench {story.folder}` times all three."


def _better(more: bool) -> str:
    return f"{'more' if more else 'less'} is better"


def in_order(some: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Results of one task: dense, uniform, champion, others."""
    places = {model: place for place, model in enumerate(MODELS)}
    return sorted(some, key=lambda result: places.get(result["model"]["name"], len(places)))
