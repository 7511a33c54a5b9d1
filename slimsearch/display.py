"""How rounds, tables and progress look: the only door to rich.

Progress goes to stderr, results to stdout. Where stderr is no terminal, each round is one plain
line and each stage says when it began.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from slimsearch import files
from slimsearch.record.candidate import Round, Score
from slimsearch.searching.watch import Watch

FIGURES = {"perplexity": "text perplexity", "accuracy": "VQA accuracy", "answer_loss": "VQA loss"}


class Display(Watch):
    """Draws a run as it goes; use it as a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._tasks: dict[str, int] = {}
        self._open: list[str] = []
        self._headed = False

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, name: str, steps: int) -> None:
        self._open.append(name)
        if len(self._open) == 1 and not self._live:
            self._say(f"{name} ...")
        if steps and name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=steps)

    def advance(self) -> None:
        if self._open and self._open[-1] in self._tasks:
            self._progress.advance(self._tasks[self._open[-1]])  # pyright: ignore[reportArgumentType]

    def end(self, name: str) -> None:
        self._open.pop()
        if name in self._tasks and name not in self._open:
            self._progress.remove_task(self._tasks.pop(name))  # pyright: ignore[reportArgumentType]

    def note(self, text: str) -> None:
        self._say(f"note: {text}")

    def scored(self, score: Score) -> None:
        self.advance()
        if not score.ok:
            self._say(f"candidate {score.candidate} failed: {score.failure}")

    def closed(self, done: Round) -> None:
        cells = round_cells(done)
        if not self._headed:
            self._say("  ".join(f"{name:>12}" for name in cells))
            self._headed = True
        self._say("  ".join(f"{value:>12}" for value in cells.values()))

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, emoji=False, soft_wrap=True)


def round_cells(done: Round) -> dict[str, str]:
    """One round as a row: champion, each of its terms, sparsity, projector, seconds."""
    best = done.champion
    moved = "-" if done.step is None else "moved" if done.step.kept else "kept"
    return {
        "round": str(done.index),
        "champion": best.candidate,
        "score": f"{best.total:.4f}",
        **{_term(name): f"{value:.4f}" for name, value in best.terms.items()},
        "sparsity": f"{best.sparsity:.4f}",
        "projector": moved,
        "seconds": f"{done.seconds:.1f}",
    }


def results(rows: Sequence[Mapping]) -> None:
    """The final table on stdout: rows of {name, sparsity, figures}."""
    table = Table(title="On data that was not calibrated on")
    table.add_column("model")
    table.add_column("sparsity", justify="right")
    shown = [key for key in FIGURES if any(key in row["figures"] for row in rows)]
    for key in shown:
        table.add_column(FIGURES[key], justify="right")
    for row in rows:
        values = [row["figures"].get(key) for key in shown]
        cells = [
            "-" if value is None else figure(key, value)
            for key, value in zip(shown, values, strict=True)
        ]
        table.add_row(row["name"], f"{row['sparsity']:.3f}", *cells)
    out().print(table)


def grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table on stdout; the first column is text, the rest too."""
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    out().print(table)


def evaluation(result: Mapping[str, Any]) -> None:
    """Figures with their intervals, by group, and the difference to another model."""
    about = f"{result['model']['name']}: {result['task']} {result['data']['name']}".strip()
    if result["figures"]:
        groups = {"all": result["figures"], **result["breakdown"]}
        names = list(dict.fromkeys(name for figures in groups.values() for name in figures))
        rows = [
            [group, *(_with_interval(figures.get(name)) for name in names)]
            for group, figures in groups.items()
        ]
        grid(f"{about}, {result['count']} questions", ["", *names], rows)
    for other in result["against"]:
        rows = [
            [
                name,
                f"{one['value']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})",
                f"{one['p']:.3g}",
            ]
            for name, one in other["figures"].items()
        ]
        grid(f"Less {other['model']['name']}, on {other['count']} questions",
             ["", "difference (95%)", "p"], rows)  # fmt: skip
        if test := other["mcnemar"]:
            say(
                f"Right by one of them only: {test['only_first']} and {test['only_second']} "
                f"(McNemar's exact test: p = {test['p']:.3g})."
            )
    for note in result["notes"]:
        say(note)
    if submission := result.get("submission"):
        say(f"The answers as an official server takes them: {submission}.")


def bars(title: str, values: Mapping[str, float]) -> None:
    """One bar for each part, from 0 to 1."""
    console = out()
    console.print(title, markup=False)
    wide = max(map(len, values), default=0)
    for name, value in values.items():
        full = round(value * 50)
        console.print(f"{name:<{wide}}  {value:.3f}  {'█' * full}{'·' * (50 - full)}", markup=False)


def speeds(rows: Sequence[Any]) -> None:
    """The table of slimsearch bench: medians, their spread, ratios against dense."""
    columns = (
        "model", "engine", "prompt", "prefill ms", "first token ms", "decode tok/s",
        "x own dense", "x best dense", "ready s", "file MiB", "memory MiB",
    )  # fmt: skip

    def times(prefill: float | None, decode: float | None) -> str:
        return "-" if prefill is None or decode is None else f"{prefill:.2f} / {decode:.2f}"

    def around(spread: float | None) -> str:
        return "" if spread is None else f" ±{spread / 2:.0%}"

    cells = [
        [
            row.model, row.engine, str(row.prompt),
            f"{row.prefill_ms:.2f}{around(row.prefill_spread)}",
            f"{row.first_token_ms:.2f}{around(row.first_token_spread)}",
            f"{row.decode_per_s:.1f}{around(row.decode_spread)}",
            times(row.prefill_of_own_dense, row.decode_of_own_dense),
            times(row.prefill_of_best_dense, row.decode_of_best_dense),
            f"{row.ready_s:.1f}", f"{row.file_mib:.1f}", f"{row.memory_mib:.0f}",
        ]
        for row in rows
    ]  # fmt: skip
    grid("Medians; ratios are prefill / decode speed against dense", columns, cells)


def say(text: str) -> None:
    """A line of results on stdout, as it is."""
    print(text)


def stream(piece: str) -> None:
    """A piece of a line on stdout, at once."""
    print(piece, end="", flush=True)


def as_json(value: Any) -> None:
    """A value on stdout, as JSON."""
    say(files.to_json(value, indent=2))


def figure(key: str, value: float) -> str:
    return f"{value:.1%}" if key == "accuracy" else f"{value:.3f}"


def out() -> Console:
    """stdout; wide enough for a table where it is no terminal."""
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 120
    return console


def _with_interval(one: Mapping[str, float] | None) -> str:
    if one is None or one["value"] is None:
        return "-"
    bounds = "" if one["low"] is None else f" ({one['low']:.2f} to {one['high']:.2f})"
    return f"{one['value']:.2f}{bounds}"


def _term(name: str) -> str:
    return "VQA loss" if name == "answer_loss" else name.replace("_", " ")
