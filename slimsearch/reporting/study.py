"""A study, many searches of `compare` or `sweep`, as one chapter: its table and what each lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slimsearch.drawing import Bar, Chart, Group, Series, bars, plot
from slimsearch.errors import RunError
from slimsearch.reporting.markup import Chapter, Figure, Html, join, paragraph, table, tag
from slimsearch.reporting.words import FIGURES, duration, figure, size

FILES = ("compare.json", "sweep.json")
DENSE, OURS, UNIFORM = "dense", "searched", "uniform"
CAPTION = "Shorter is better. Blue: our search; orange: the same everywhere; grey: anything else."
SWEPT = re.compile(r"(\d+)x(\d+)")  # segments and their length, as `sweep` names its rows

Row = Mapping[str, Any]


def is_one(folder: Path) -> bool:
    return any((folder / name).is_file() for name in FILES)


def chapter(folder: Path, prefix: str) -> Chapter:
    """Every row of the study; its anchor and figures begin with `prefix`."""
    facts = _read(folder)
    rows, swept = facts["rows"], all(SWEPT.fullmatch(row["name"]) for row in facts["rows"])
    keys = [key for key in FIGURES if any(key in row["figures"] for row in rows)]
    strong = [place for place, row in enumerate(rows) if row["name"] == OURS]
    columns = ("row", "zeros", *(FIGURES[key][0] for key in keys), "time", "memory")
    name = Path(facts["model"]).name
    every = (
        "Each row is a search by another amount of text." if swept else
        "Each row is a whole run: a baseline, another search, or ours with one part left out."
    )  # fmt: skip
    body: list[Html | Figure] = [
        tag("p", f"{len(rows)} models of {name} at {facts['ratio']:.0%}, all measured on the same "
                 f"held-out data. {every}", class_="lead"),
        table(columns, [_cells(row, keys) for row in rows], strong),
    ]  # fmt: skip
    body += list(_swept(rows, keys, prefix) if swept else _lost(rows, keys, prefix))
    if not swept:
        body.append(tag("dl", *(_meant(row) for row in rows), class_="words"))
    body.append(paragraph(
        "Every row is a run of its own in ", tag("code", str(folder)), ": ",
        tag("code", f"slimsearch report {folder / str(rows[-1]['name'])}"), " shows one whole.",
    ))  # fmt: skip
    return Chapter(f"{prefix}study", f"{name} at {facts['ratio']:g}", tuple(body))


def _read(folder: Path) -> dict[str, Any]:
    file = next(folder / name for name in FILES if (folder / name).is_file())
    try:
        facts = json.loads(file.read_text("utf-8"))
        rows = [(row["name"], row["figures"], row["sparsity"]) for row in facts["rows"]]
        sound = bool(rows) and isinstance(facts["model"], str) and facts["ratio"] < 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} cannot be read as a study ({error}). Make it again.") from None
    if not sound:
        raise RunError(f"{file} holds no rows of a study. Make it again with slimsearch compare.")
    return facts


def _cells(row: Row, keys: Sequence[str]) -> list[str]:
    spent, peak = row.get("seconds") or 0.0, row.get("peak_bytes") or 0
    return [
        row["name"], f"{row['sparsity']:.1%}",
        *(figure(key, row["figures"].get(key)) for key in keys),
        duration(spent) if spent else "-", size(peak) if peak else "-",
    ]  # fmt: skip


def _meant(row: Row) -> Html:
    return tag("div", tag("dt", row["name"]), tag("dd", str(row.get("about") or "a run")))


def _lost(rows: Sequence[Row], keys: Sequence[str], prefix: str) -> Iterator[Figure]:
    """What each row lost against the dense model, the best first."""
    dense = next((row["figures"] for row in rows if row["name"] == DENSE), {})
    for key in keys:
        there = [row for row in rows if row["name"] != DENSE and key in row["figures"]]
        if key not in dense or not there:
            continue
        name, more = FIGURES[key]
        scale = (-1 if more else 1) * (100 if key == "accuracy" else 1)
        found = sorted((scale * (row["figures"][key] - dense[key]), row["name"]) for row in there)
        unit = "points below dense" if key == "accuracy" else "above dense"
        drawn = [
            Bar(row, max(worse, 0.0), f"{worse:.3g}" if worse > 0 else "none",
                "blue" if row == OURS else "orange" if row.startswith(UNIFORM) else "grey")
            for worse, row in found
        ]  # fmt: skip
        scene = bars([Group(f"{name.capitalize()}, {unit}", drawn)])
        yield Figure(f"{prefix}{key}", scene, join(CAPTION))


def _swept(rows: Sequence[Row], keys: Sequence[str], prefix: str) -> Iterator[Figure]:
    """Every figure against the number of segments, a line for each length."""
    sizes = {row["name"]: tuple(map(int, row["name"].split("x"))) for row in rows}
    for key in keys:
        scale, unit = (100, ", %") if key == "accuracy" else (1, "")
        series = []
        for length in sorted({long for _, long in sizes.values()}):
            points = [
                (count, scale * row["figures"][key]) for row in rows
                for count, long in [sizes[row["name"]]] if long == length and key in row["figures"]
            ]  # fmt: skip
            series.append(Series(f"{length} tokens each", sorted(points)))
        name, more = FIGURES[key]
        chart = Chart(name.capitalize(), "segments", f"{name}{unit}", series, doubling=True)
        said = f"Each dot is a whole search; {'higher' if more else 'lower'} is better."
        yield Figure(f"{prefix}{key}", plot(chart), join(said))
