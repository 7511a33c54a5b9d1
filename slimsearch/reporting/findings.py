"""What a search found, drawn: quality beside dense and uniform, where weights went, speed, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

from slimsearch.drawing import Bar, Group, HeatMap, Scene, bars, heat
from slimsearch.record.candidate import Row
from slimsearch.reporting.story import Story
from slimsearch.reporting.words import FIGURES, duration

BENCHED = {  # what bench calls them -> how they are called here, and coloured
    "export": ("champion", "blue"), "uniform": ("uniform", "orange"), "against": ("dense", "grey"),
}  # fmt: skip
COLOUR = {"dense": "grey", "uniform": "orange", "searched": "blue"}


def lost(story: Story) -> Scene | None:
    """How much worse than dense every pruned model of the run's own table is."""
    dense = story.dense
    if dense is None:
        return None
    groups = []
    for key, (name, more) in FIGURES.items():
        rows = [row for row in story.rows if row is not dense and key in row.figures]
        if key not in dense.figures or not rows:
            continue
        drawn = [_worse(row, key, dense.figures[key], more) for row in rows]
        unit = "points below dense" if key == "accuracy" else "above dense"
        groups.append(Group(f"{name.capitalize()}, {unit}", drawn))
    return bars(groups) if groups else None


def _worse(row: Row, key: str, dense: float, more: bool) -> Bar:
    worse = (dense - row.figures[key]) if more else (row.figures[key] - dense)
    scale = 100 if key == "accuracy" else 1
    shown = f"{worse * scale:.3g}" if worse > 0 else f"better by {-worse * scale:.3g}"
    if worse == 0:
        shown = "none"
    kind = row.name.split()[0]
    return Bar(row.name, max(worse, 0.0), shown, COLOUR.get(kind, "green"))


def weights(story: Story) -> Scene | None:
    """The share of zeros in every matrix and block of the champion."""
    found = story.sparsities
    if not found:
        return None
    blocks = sorted({_block(name) for name in found}, key=int)
    roles = list(dict.fromkeys(name.rpartition(".")[2] for name in found))
    low, high = min(found.values()), max(found.values())
    sizes = {name: rows * columns for name, rows, columns in story.scope.get("matrices", ())}
    grid = [
        [
            *(found.get(f"blocks.{block}.{role}") for role in roles),
            _whole_block(found, sizes, block),
        ]
        for block in blocks
    ]
    one = HeatMap(
        "Zeros, %",
        [*roles, "block"],
        [[_between(value, low, high) for value in row] for row in grid],
        [["" if value is None else f"{100 * value:.0f}" for value in row] for row in grid],
        (f"{low:.0%} zero", f"{high:.0%} zero"),
    )
    return heat([one], blocks)


def sensitivities(story: Story) -> Scene | None:
    """What pruning each matrix and each block to the ratio would cost, in shares of the sum."""
    costs = story.sensitivity
    if not costs or not (whole := sum(costs.values())):
        return None
    blocks = sorted({_block(name) for name in costs}, key=int)
    roles = list(dict.fromkeys(name.split(".")[2] for name in costs if name.count(".") == 2))
    grid = [
        [
            *(costs.get(f"blocks.{block}.{role}") for role in roles),
            sum(cost for name, cost in costs.items() if _block(name) == block),
        ]
        for block in blocks
    ]
    shares = [[None if cost is None else cost / whole for cost in row] for row in grid]
    every = [share for row in shares for share in row if share]
    low, high = log(min(every)), log(max(every))
    one = HeatMap(
        "Sensitivity, % of the sum",
        [*roles, "block"],
        [
            [None if v is None else _between(log(max(v, min(every))), low, high) for v in row]
            for row in shares
        ],
        [["" if v is None else f"{100 * v:.2g}" for v in row] for row in shares],
        (f"{100 * min(every):.2g}%", f"{max(every):.0%}, shaded by logarithm"),
        "orange",
    )
    return heat([one], blocks)


def _whole_block(found: Mapping[str, float], sizes: Mapping[str, int], block: str) -> float | None:
    """The share of zeros in a whole block, where the sizes of its matrices are known."""
    inside = [name for name in found if _block(name) == block]
    if not all(name in sizes for name in inside):
        return None
    weights = [sizes[name] for name in inside]
    return sum(found[name] * size for name, size in zip(inside, weights, strict=True)) / sum(
        weights
    )


def speed(bench: Mapping[str, Any]) -> Scene:
    """Tokens a second of both models in every engine, as `bench` measured them."""
    groups = []
    for length in sorted({row["prompt"] for row in bench["rows"]}):
        rows = [row for row in bench["rows"] if row["prompt"] == length]
        for title, speeds in (
            (f"Prompt of {length} tokens, tokens a second",
             [length * 1e3 / row["prefill_ms"] for row in rows]),
            (f"Decoding behind {length} tokens, tokens a second",
             [row["decode_per_s"] for row in rows]),
        ):  # fmt: skip
            ordered = sorted(zip(speeds, rows, strict=True), key=lambda one: -one[0])
            drawn = [
                Bar(f"{row['engine']}, {BENCHED[row['model']][0]}", value, f"{value:.0f}",
                    BENCHED[row["model"]][1])
                for value, row in ordered
            ]  # fmt: skip
            groups.append(Group(title, drawn))
    return bars(groups)


def stages(spent: Mapping[str, float]) -> Scene:
    """Where the time of a run went."""
    ordered = sorted(spent.items(), key=lambda one: -one[1])
    drawn = [Bar(name, seconds, duration(seconds)) for name, seconds in ordered]
    return bars([Group("Time by stage", drawn)])


def trade_off(stories: Sequence[Story]) -> Scene | None:
    """Several runs: what each lost against its dense model."""
    groups = []
    for key, (name, more) in FIGURES.items():
        drawn = []
        for story in stories:
            dense = story.dense
            if dense is None or key not in dense.figures:
                continue
            for row in (story.uniform, story.searched):
                if row is not None and key in row.figures:
                    bar = _worse(row, key, dense.figures[key], more)
                    kind = "uniform" if row is story.uniform else "searched"
                    drawn.append(Bar(f"{story.name}, {kind}", bar.value, bar.shown, bar.colour))
        if drawn:
            unit = "points below dense" if key == "accuracy" else "above dense"
            groups.append(Group(f"{name.capitalize()}, {unit}", drawn))
    return bars(groups) if groups else None


def _block(matrix: str) -> str:
    return matrix.split(".")[1]


def _between(value: float | None, low: float, high: float) -> float | None:
    return None if value is None else (value - low) / ((high - low) or 1.0)
