"""Figures 2 to 5 of "Skipping Computations in Multimodal LLMs" in shape, of the model at hand.

Each point is the whole model with one block in so many running otherwise, nothing trained, measured
on what is held back: blocks, FFNs or attention that answers skip (2); the same for all tokens (3);
blocks from later on (4); FFN beside attention, and two blocks side by side (5). What is measured
already is not measured again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slimsearch import files
from slimsearch.api import assembly, inputs
from slimsearch.api.assembly import Bench
from slimsearch.contracts import Family
from slimsearch.drawing import Chart, Scene, Series, plot, svg
from slimsearch.drawing.png import png
from slimsearch.errors import RunError, SettingsError
from slimsearch.policy import Table
from slimsearch.routes.route import Route, plain, together
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings

FILE = "skipping.json"
INTERVALS = (2, 3, 4, 6, 8)
SKIPS = {"skip_block": "block", "skip_ffn": "FFN", "skip_attention": "attention"}
BESIDE = {"parallel_ffn_attention": "FFN and attention", "parallel_blocks": "two blocks"}
TITLES = {
    2: "Figure 2: what answers skip",
    3: "Figure 3: answers alone (T) or all tokens (P+T)",
    4: "Figure 4: where skipping blocks starts",
    5: "Figure 5: what runs side by side",
}
ENOUGH = 0.9  # of the dense model's accuracy, which the paper draws a line at
COLUMNS = ("figure", "curve", "interval", "of the blocks", "VQA accuracy", "perplexity")


@dataclass(frozen=True)
class Curve:
    """One line of a figure: a family's rule, but for its interval."""

    figure: int
    name: str
    family: str
    start: int
    tokens: str = ""

    def table(self, interval: int) -> Table:
        words = {"tokens": self.tokens} if self.tokens else {}
        return {"start": self.start, "interval": interval, **words}


@dataclass(frozen=True)
class Point:
    figure: int
    curve: str
    interval: int
    blocks: float  # the share of them that run otherwise
    figures: dict[str, float]


@dataclass(frozen=True)
class Drawn:
    """`dense` are the figures of the model as it came."""

    dense: dict[str, float]
    points: tuple[Point, ...]


def curves(starts: Sequence[int], start: int) -> Iterator[Curve]:
    """Every line of the four figures; those that differ in something else start at `start`."""
    for family, name in SKIPS.items():
        yield Curve(2, name, family, start, "T")
    for family, name in SKIPS.items():
        for tokens in ("T", "P+T"):
            yield Curve(3, f"{name} ({tokens})", family, start, tokens)
    for begin in starts:
        for tokens in ("T", "P+T"):
            yield Curve(4, f"from {begin} ({tokens})", "skip_block", begin, tokens)
    for family, name in BESIDE.items():
        yield Curve(5, name, family, start)


def draw(
    chosen: Settings, intervals: Sequence[int], starts: Sequence[int], folder: Path, watch: Watch
) -> Drawn:
    """Measures what is not measured yet, and leaves skipping.json and the figures in the folder."""
    given = inputs.gather(
        replace(chosen, policy="uniform", projector_steps=0, polish="none", executor="local")
    )
    if given.material.held_pairs == () or not given.architecture.sees:
        raise SettingsError(
            "Figures 2 to 5 show how many answers about pictures are right, and no pairs are held "
            "back. Give --pairs, and a model that sees."
        )
    bench = assembly.load(given, watch)
    count = len(bench.loop.evaluator.vlm.blocks)
    start = max(1, count // 8)  # 4 of 32, as published
    lines = list(curves(_within(starts or (0, start, 2 * start), count), start))
    known = _known(folder / FILE, given.fingerprint)
    wanted = [
        (line, every)
        for line in lines
        for every in intervals
        if every > 1 or line.family != "parallel_blocks"
    ]
    dense = _measured(bench, plain(count), "dense", known)
    points = []
    with watch.stage("figures", len(wanted)) as advance:
        for line, every in wanted:
            route, share = _route(bench, line, every)
            key = json.dumps(route.as_json(), sort_keys=True)
            found = _measured(bench, route, key, known)
            points.append(Point(line.figure, line.name, every, share, found))
            facts = {"fingerprint": given.fingerprint, "measured": known}
            _write(folder, chosen, facts, Drawn(dense, tuple(points)))
            advance()
    done = Drawn(dense, tuple(points))
    for figure in TITLES:
        scene = drawn(done, figure)
        files.write(folder / f"figure-{figure}.svg", svg(scene).encode())
        files.write(folder / f"figure-{figure}.png", png(scene))
    return done


def drawn(found: Drawn, figure: int) -> Scene:
    """One figure: accuracy against the interval, beside the dense model's and 0.9 of it."""
    points = [point for point in found.points if point.figure == figure]
    series = [
        Series(name, [(p.interval, 100 * p.figures["accuracy"]) for p in points if p.curve == name])
        for name in dict.fromkeys(point.curve for point in points)
    ]
    ends = sorted({point.interval for point in points})
    whole = 100 * found.dense["accuracy"]
    for name, level in (("dense", whole), (f"{ENOUGH:g} of dense", ENOUGH * whole)):
        flat = [(ends[0], level), (ends[-1], level)]
        series.append(Series(name, flat, dotted=False, dashed=True))
    return plot(Chart(TITLES[figure], "interval", "VQA accuracy, %", series))


def cells(found: Drawn) -> list[list[str]]:
    """The table as text, a row for each point."""
    rows = [["-", "dense", "-", "-", *_figures(found.dense)]]
    rows += [
        [str(p.figure), p.curve, str(p.interval), f"{p.blocks:.0%}", *_figures(p.figures)]
        for p in found.points
    ]
    return rows


def _figures(figures: dict[str, float]) -> list[str]:
    return [f"{figures['accuracy']:.1%}", f"{figures.get('perplexity', float('nan')):.2f}"]


def _within(starts: Sequence[int], count: int) -> list[int]:
    wrong = [start for start in starts if start >= count]
    if wrong:
        raise SettingsError(
            f"--starts names block {wrong[0]}; this model's last one is {count - 1}."
        )
    return sorted(set(starts))


def _route(bench: Bench, line: Curve, every: int) -> tuple[Route, float]:
    """How the blocks run, and the share of them that do otherwise than they came."""
    body = bench.loop.evaluator.vlm.body
    family: Family = assembly.make("families", line.family, bench.loop.settings)
    edits = family.edits(line.table(every), body)
    return together([edits], body.blocks), len(edits) / len(body.blocks)


def _measured(bench: Bench, route: Route, key: str, known: dict[str, Any]) -> dict[str, float]:
    """The model's figures on what is held back while it runs along a route."""
    if key not in known:
        vlm = bench.loop.evaluator.vlm
        vlm.reroute("figures", route)
        try:
            figures: dict[str, float] = {}
            for task in bench.tasks.values():
                figures |= task.measure(vlm, bench.held_out)
        finally:
            vlm.reroute("figures", plain(len(vlm.blocks)))
        known[key] = figures
    return known[key]


def _known(file: Path, fingerprint: dict[str, Any]) -> dict[str, Any]:
    """What an earlier call measured of the same model on the same data."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text("utf-8"))
        same = found["fingerprint"] == json.loads(files.to_json(fingerprint))
        measured = dict(found["measured"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is damaged ({error!r}); remove it.") from None
    if not same:
        raise RunError(f"{file} is of another model, data or settings. Choose another --out.")
    return measured


def _write(folder: Path, chosen: Settings, facts: dict[str, Any], found: Drawn) -> None:
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    told = {"model": chosen.model, **asdict(found), **facts}
    files.write(folder / FILE, files.to_json(told, indent=2).encode())
