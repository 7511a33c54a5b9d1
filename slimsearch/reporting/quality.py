"""What dense, uniform and champion can do, how fast they are and how large."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slimsearch.reporting import findings
from slimsearch.reporting.beside import in_order
from slimsearch.reporting.markup import Chapter, Figure, Html, join, missing, paragraph, table, tag
from slimsearch.reporting.story import Story
from slimsearch.reporting.words import FIGURES, bounded, count, figure, listed, size, spelt

PLAIN = {"export": "champion", "uniform": "uniform", "against": "dense"}


def found(story: Story) -> Chapter:
    """The run's own table, on data that was not calibrated on."""
    if not story.rows:
        return Chapter("results", "What was found", (missing("No model was measured yet."),))
    keys = [key for key in FIGURES if any(key in row.figures for row in story.rows)]
    columns = ["model", "zeros", *(FIGURES[key][0] for key in keys)]
    cells = [
        [row.name, f"{row.sparsity:.1%}", *(figure(key, row.figures.get(key)) for key in keys)]
        for row in story.rows
    ]
    strong = [place for place, row in enumerate(story.rows) if row is story.searched]
    body: list[Html | Figure] = [paragraph(_on_what(story)), table(columns, cells, strong)]
    if story.uniform is None and story.searched is not None:
        body.append(missing("Uniform pruning was not measured: the run skipped its baselines."))
    drawn = findings.lost(story)
    if drawn is not None:
        caption = (
            "What pruning costs, figure by figure: shorter is better, and no bar means that "
            "nothing was lost. Uniform pruning removes as much, spread evenly; “text only” "
            "calibrates it without pictures, as published."
        )
        body.append(Figure("lost", drawn, join(caption)))
    return Chapter("results", "What was found", tuple(body))


def _on_what(story: Story) -> str:
    held = story.scope.get("held_out")
    said = "Every row reads the same text and answers the same questions"
    if held is None:
        return f"{said}, none of them calibrated on. (How many, this run did not keep.)"
    counts = [f"{count(held['texts']['tokens'])} tokens of text"] if held["texts"]["rows"] else []
    if held["pairs"]["rows"]:
        counts.append(
            f"{held['pairs']['answers']} questions about {held['pairs']['rows']} pictures"
        )
    return f"{said}, none of them calibrated on: {listed(counts) or 'there were none'}."


def evaluations(story: Story) -> Iterator[Chapter]:
    """A chapter for the tasks that were run on this run's models."""
    if not story.evaluations:
        yield Chapter("tasks", "Benchmarks", (missing(
            "No evaluation task was run on this search. `slimsearch eval` keeps its results in the "
            "run's folder, and a report made after that shows them here."
        ),))  # fmt: skip
        return
    body: list[Html] = [paragraph(
        "Brackets hold the 95% interval; accuracies are percentages. A model that stands in no row "
        "was not measured on that task."
    )]  # fmt: skip
    for name, some in story.tasks.items():
        body += _task(name, some)
    yield Chapter("tasks", "Benchmarks", tuple(body))


def _task(name: str, some: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    """One task's figures by model, its breakdown, and how sure a difference is."""
    some = in_order(some)
    first = some[0]
    yield tag("h3", name)
    keys = list(dict.fromkeys(key for result in some for key in result["figures"]))
    strong = [n for n, result in enumerate(some) if result["model"]["name"] == "champion"]
    if keys:
        yield table(
            ["model", "questions", *map(spelt, keys)],
            [[result["model"]["name"], str(result["count"]),
              *(bounded(result["figures"].get(key)) for key in keys)] for result in some],
            strong,
        )  # fmt: skip
    else:
        yield missing("Answers were written, and are not graded yet.")
    groups = list(dict.fromkeys(group for result in some for group in result["breakdown"]))
    if groups:
        headline = first["headline"]
        yield table(
            [f"{spelt(headline)} by group", *groups],
            [[result["model"]["name"],
              *(bounded(result["breakdown"].get(group, {}).get(headline)) for group in groups)]
             for result in some],
            strong,
        )  # fmt: skip
    for result in some:
        for other in result["against"]:
            yield paragraph(_difference(result, other))


def _difference(result: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    told = other["figures"].get(result["headline"])
    names = f"{result['model']['name']} against {other['model']['name']}"
    if told is None:
        return f"{names}: no difference was measured."
    sure = "more than chance" if told["p"] < 0.05 else "within chance"
    return (
        f"{names}, the same {other['count']} questions: {told['value']:+.2f} "
        f"({told['low']:+.2f} to {told['high']:+.2f}), p = {told['p']:.3g}: {sure}."
    )


def speed(story: Story) -> Chapter:
    """What `bench` measured, and what the weights take on disk."""
    body: list[Html | Figure] = []
    if not story.benches:
        body.append(missing(
            f"Speed was not measured. `slimsearch bench {story.folder}` times champion, uniform "
            f"and dense, and a report made after that shows it here; so does --bench with what "
            f"`slimsearch bench EXPORT --against DENSE --json` printed."
        ))  # fmt: skip
    for number, bench in enumerate(story.benches, 1):
        columns = ("model, engine", "prompt", "prompt ms", "tokens a second", "times own dense",
                   "times best dense", "file MiB", "memory MiB")  # fmt: skip
        body.append(table(columns, [_bench_row(row) for row in bench["rows"]]))
        body.append(tag("ul", *(tag("li", line) for line in (*bench["verdict"], *bench["notes"]))))
        name = "speed" if number == 1 else f"speed-{number}"
        caption = "Medians of turns taken in one process; longer is faster."
        body.append(Figure(name, findings.speed(bench), join(caption)))
    body.append(_sizes(story))
    return Chapter("speed", "Speed and size", tuple(body))


def _bench_row(row: Mapping[str, Any]) -> list[str]:
    def times(phase: str, whom: str) -> str:
        value = row[f"{phase}_of_{whom}_dense"]
        return "-" if value is None else f"{value:.2f}"

    return [
        f"{PLAIN[row['model']]}, {row['engine']}", str(row["prompt"]), f"{row['prefill_ms']:.1f}",
        f"{row['decode_per_s']:.1f}",
        f"{times('prefill', 'own')} / {times('decode', 'own')}",
        f"{times('prefill', 'best')} / {times('decode', 'best')}",
        f"{row['file_mib']:.1f}", f"{row['memory_mib']:.0f}",
    ]  # fmt: skip


def _sizes(story: Story) -> Html:
    scope, best = story.scope, story.searched
    if not scope or best is None:
        return missing("How many parameters the model has, this run did not keep.")
    prunable, packed = story.prunable, story.packed(best.sparsity)
    return paragraph(
        f"Of {count(scope['parameters'])} parameters {count(prunable)} could be pruned, and "
        f"{count(prunable * (1 - best.sparsity))} of those are left. An ordinary folder keeps the "
        f"zeros and is as large as before, {size(story.whole)}; a bit for each prunable weight and "
        f"the values that stay would take {size(packed)}, {packed / story.whole:.0%} of that."
    )
