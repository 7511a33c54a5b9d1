"""The paper's tables and figures in their own shape: published, and here; or why not here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slimsearch.api import comparing, sweeping
from slimsearch.drawing import Chart, Series, plot
from slimsearch.replicating import published
from slimsearch.replicating.published import GROUPS, RATIOS
from slimsearch.replicating.study import ABLATED, BENCHMARKS, SWEPT, Cell, Study, named
from slimsearch.reporting.markup import (
    Chapter,
    Figure,
    Gallery,
    Html,
    Piece,
    join,
    missing,
    paragraph,
    table,
    tag,
)
from slimsearch.settings import Settings

NOT_RUN = "not run"
METHODS = ("LLM-Pruner", "SparseGPT", "SlimLLaVA")
UNPRINTED = Cell(None)  # the paper has no such figure
TASK = "scienceqa"
MEANT = {  # of the paper's methods -> what stands for them here
    "LLM-Pruner": "slimsearch narrow, whole heads and FFN channels, without its recovery training",
    "SparseGPT": "every matrix at the ratio, calibrated on text alone, as published",
    "SlimLLaVA": "our search by the settings given (--exact --objective paper: the published one)",
}


@dataclass(frozen=True)
class Line:
    """A row of a table: what it is called, and its cells."""

    names: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Exhibit:
    """A table of the paper with ours beside it."""

    name: str
    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    def chapter(self, about: str) -> Chapter:
        strong = [n for n, line in enumerate(self.lines) if line.names[-1] == "here"]
        rows = [[", ".join(line.names), *map(_shown, line.cells)] for line in self.lines]
        body = [paragraph(about), table(self.columns, rows, strong), *_reasons(self.lines)]
        return Chapter(self.name, self.title, tuple(body))


def narrowed(shown: Sequence[str]) -> list[float]:
    """At which ratios the paper prints LLM-Pruner in these tables."""
    three = {ratio for ratio, method in published.TABLE_3["LLaVA-SQA-7B"] if method == METHODS[0]}
    wanted = (three if "table-3" in shown else set()) | (
        set(RATIOS) if "table-4" in shown else set()
    )
    return sorted(wanted)


def ablations(study: Study, name: str) -> Exhibit:
    """Table 1 (the policy) or Table 2 (the projector)."""
    numbers = published.TABLE_1 if name == "table-1" else published.TABLE_2
    lines = []
    for method, (ratio, accuracy) in numbers.items():
        run = named(ABLATED, "SparseGPT" if method == "Uniform" else method)
        outcome = study.outcomes.get(run)
        zeros = Cell(outcome.sparsity) if outcome else study.measured(run, "")
        printed = (Cell(ratio), Cell(accuracy), UNPRINTED, UNPRINTED)
        lines.append(Line((method, "published"), printed))
        cells = (zeros, study.scored(run, "scienceqa"), *_own(study, run))
        lines.append(Line((method, "here"), cells))
    titles = {"table-1": "Table 1: what the generalisation term is worth",
              "table-2": "Table 2: what moving the projector is worth"}  # fmt: skip
    columns = ("criterion", "average ratio", "ScienceQA", "held-out answers right",
               "held-out perplexity")  # fmt: skip
    return Exhibit(name, titles[name], columns, tuple(lines))


def table_3(study: Study) -> Exhibit:
    """ScienceQA by subject, context and grade, of both of the paper's models and ours."""
    lines = []
    for ratio, method in published.TABLE_3["LLaVA-SQA-7B"]:
        for model, numbers in published.TABLE_3.items():
            cells = tuple(map(Cell, numbers[ratio, method]))
            lines.append(Line((f"{ratio:g}", method, model), cells))
        cells = tuple(_ours(study, ratio, method, "scienceqa", group) for group in (*GROUPS, ""))
        lines.append(Line((f"{ratio:g}", method, "here"), cells))
    columns = ("ratio, method, model", *GROUPS, "average")
    return Exhibit("table-3", "Table 3: ScienceQA", columns, tuple(lines))


def table_4(study: Study) -> Exhibit:
    """VizWiz, MM-Vet and LLaVA-Bench at every ratio."""
    names = list(published.TABLE_4)
    columns = [f"{BENCHMARKS[name][1]} {ratio:g}" for name in names for ratio in (0.0, *RATIOS)]
    lines = []
    for method in METHODS:
        keys = [(ratio, method if ratio else "dense") for ratio in (0.0, *RATIOS)]
        printed = [published.TABLE_4[name][key] for name in names for key in keys]
        lines.append(Line((method, "LLaVA-v1.5-7B"), tuple(map(Cell, printed))))
        here = [_ours(study, *key, name) for name in names for key in keys]
        lines.append(Line((method, "here"), tuple(here)))
    return Exhibit("table-4", "Table 4: three more benchmarks", ("method", *columns), tuple(lines))


def figure_1(study: Study) -> Chapter:
    """Accuracy against speed, where a bench.json stands in the run's folder."""
    points = list(published.FIGURE_1.values())
    series = [Series("SlimLLaVA, published", points, True, "grey", "circle")]
    ours, unsaid = [], []
    for ratio in RATIOS:
        run = named(ratio, "SlimLLaVA")
        speed = _speed(study.folder / run)
        right = study.scored(run, "scienceqa")
        right = right if right.value is not None else study.measured(run, "accuracy")
        if speed is None or right.value is None:
            unsaid.append(f"{ratio:g}")
        else:
            ours.append((speed, right.value))
    if ours:
        series.append(Series("ours, here", ours, True, "blue", "diamond"))
    chart = Chart("Accuracy against speed", "times as fast as dense", "accuracy, %", series)
    caption = (
        "Published: LLaVA-v1.5-7B in DeepSparse against its accuracy on ScienceQA. Here: a prompt "
        "in the fastest engine against the same engine's dense, and ScienceQA where it was run, "
        "else held-out answers right."
    )
    body: list[Piece] = [Figure("figure-1", plot(chart), join(caption))]
    if unsaid:
        body.append(missing(
            f"{NOT_RUN}: at {', '.join(unsaid)} there is no speed. `slimsearch bench "
            f"{study.folder}/ours-RATIO` times a run beside its dense model; then call this again."
        ))  # fmt: skip
    return Chapter("figure-1", "Figure 1: accuracy against speed", tuple(body))


def figure_3(study: Study) -> Chapter:
    """What more and longer segments of text are worth."""
    rows = [trial for name, trial in study.trials.items() if re.fullmatch(r"\d+x\d+", name)]
    found = []
    for row in rows:
        if (outcome := study.outcomes.get(row.name)) is not None:
            right = study.scored(row.name, "scienceqa").value
            figures = {**outcome.figures} if right is None else {**outcome.figures, TASK: right}
            found.append(replace(outcome, figures=figures))
    charts = sweeping.charts(rows, found, {TASK: "ScienceQA, %", **sweeping.DRAWN})
    figures = tuple(
        Figure(f"figure-3-{number}", plot(chart), Html()) for number, chart in enumerate(charts, 1)
    )
    about = paragraph(
        f"At a ratio of {SWEPT:g}, on whatever data was at hand. The paper draws ScienceQA, whose "
        f"curves have no printed numbers: it calls the gain negligible past 64 segments of 256 "
        f"tokens."
    )
    left = [row.name for row in rows if row.name not in study.outcomes]
    said = [missing(f"{NOT_RUN}: {', '.join(left)} failed.")] if left else []
    gallery = [Gallery(figures, join("Each dot is a whole search."))] if figures else []
    title = "Figure 3: how much text a search needs"
    return Chapter("figure-3", title, (about, *gallery, *said))


def measured(study: Study) -> Chapter:
    """Every run's own figures, whatever benchmark was at hand."""
    found = list(study.outcomes.values())
    cells = comparing.cells([found[-1], *found[:-1]])  # dense first
    about = "Each run measures itself on text and questions that it was not calibrated on."
    return Chapter("measured", "Measured in every run",
                   (paragraph(about), table(comparing.COLUMNS, cells)))  # fmt: skip


def grounds(study: Study, chosen: Settings) -> Html:
    """How much was searched and asked: what the figures here rest on."""
    rounds = f"{chosen.rounds} round{'s' * (chosen.rounds != 1)}"
    said = [f"Each search here: {rounds} of {chosen.candidates} candidates; "
            f"settings.toml in its folder says the rest."]  # fmt: skip
    for benchmark, (_, called) in BENCHMARKS.items():
        for count, judge in study.sizes(benchmark):
            graded = f", graded by {judge}" if judge else ""
            said.append(f"{called}: {count} question{'s' * (count != 1)}{graded}.")
    return paragraph(" ".join(said))


def _own(study: Study, run: str) -> tuple[Cell, Cell]:
    return study.measured(run, "accuracy"), study.measured(run, "perplexity")


def _ours(study: Study, ratio: float, method: str, benchmark: str, group: str = "") -> Cell:
    return study.scored(named(ratio, method), benchmark, group)


def _speed(run: Path) -> float | None:
    """How many times as fast as its own dense the fastest engine reads the longest prompt."""
    file = run / "bench.json"
    if not file.is_file():
        return None
    rows = [
        row for row in json.loads(file.read_text("utf-8"))["rows"]
        if row["model"] == "export" and row["prefill_of_own_dense"] is not None
    ]  # fmt: skip
    if not rows:
        return None
    longest = max(row["prompt"] for row in rows)
    fastest = min((row for row in rows if row["prompt"] == longest),
                  key=lambda row: row["prefill_ms"])  # fmt: skip
    return fastest["prefill_of_own_dense"]


def _shown(cell: Cell) -> str:
    if cell.value is not None:
        return f"{cell.value:.2f}"
    return "-" if cell == UNPRINTED else tag("em", NOT_RUN)


def _reasons(lines: Sequence[Line]) -> Iterator[Html]:
    """Why cells are empty, each reason once."""
    of: Mapping[str, list[str]] = {}
    for line in lines:
        for cell in line.cells:
            if cell.why and ", ".join(line.names) not in of.setdefault(cell.why, []):
                of[cell.why].append(", ".join(line.names))
    for why, names in of.items():
        which = "; ".join(names) if len(names) <= 4 else f"{len(names)} rows"
        yield missing(f"{NOT_RUN}: {why} ({which}).")
