"""How a search went, drawn: convergence, the space it moved in, terms, stitched against exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy import ndarray

from slimsearch.drawing import Chart, Scene, Series, plot
from slimsearch.record.candidate import Score
from slimsearch.reporting.story import Story
from slimsearch.reporting.words import spelt

MOST_SPREAD = 3.0  # of the distance from best to median: what scores worse stands at the rim


@dataclass(frozen=True)
class Map:
    """Candidates in the plane in which policy space is widest."""

    points: ndarray  # [candidates, 2]
    kept: float  # the share of the spread that the plane shows


def convergence(story: Story) -> Scene:
    """Every candidate of every round by its score, and the best so far."""
    rounds = list(story.history.rounds.values())
    shown = [(done.index, score) for done in rounds for score in done.scores]
    sound = [(index, score) for index, score in shown if score.ok]
    failed = [(index, score) for index, score in shown if not score.ok]
    totals = np.array([score.total for _, score in sound] or [0.0])
    low = float(totals.min())
    most = max(low + MOST_SPREAD * float(np.median(totals) - low), float(np.percentile(totals, 75)))
    best = [(done.index, done.champion.total) for done in rounds]

    def dots(name: str, some: Sequence[tuple[int, Score]], **look) -> Series:
        return Series(
            name,
            _side_by_side([(index, score.total) for index, score in some]),
            joined=False,
            titles=[_told(score) for _, score in some],
            **look,
        )

    early = [one for one in sound if one[1].share < 1]
    series = [
        dots("measured on all", [one for one in sound if one[1].share == 1], colour="grey"),
        *([dots("on a part", early, colour="grey", hollow=True, shape="circle")] if early else []),
        Series("best of the round", best, colour="blue", shape="diamond"),
    ]
    if failed:
        rim = [(float(index), most) for index, _ in failed]
        told = [score.candidate for _, score in failed]
        series.append(Series("failed", rim, False, "rose", "cross", titles=told))
    return plot(Chart("Every candidate, round by round", "round", "score, lower is better", series,
                      most=most))  # fmt: skip


def projected(points: Sequence[Sequence[float]]) -> Map:
    """Points onto their two principal axes: the plane that keeps most of their distances."""
    centred = np.asarray(points, float) - np.mean(points, axis=0)
    left, widths, _ = np.linalg.svd(centred, full_matrices=False)
    widths = np.pad(widths, (0, max(0, 2 - len(widths))))
    left = np.pad(left, ((0, 0), (0, max(0, 2 - left.shape[1]))))
    flat = left[:, :2] * widths[:2]
    for axis in (0, 1):  # a sign is chosen, so that the same points always give the same picture
        if flat[np.abs(flat[:, axis]).argmax(), axis] < 0:
            flat[:, axis] *= -1
    return Map(flat, float((widths[:2] ** 2).sum() / ((widths**2).sum() or 1.0)))


def neighbourhood(story: Story) -> tuple[Scene, Map]:
    """Policy space from above: rounds by shape, a dot larger where its neighbours are near."""
    seen: dict[tuple[int, ...], tuple[int, float, Score]] = {}
    for done in story.history.rounds.values():
        good = [score for score in done.scores if score.ok]
        for score, weight in zip(good, done.weights, strict=True):
            first = seen[score.genes][0] if score.genes in seen else done.index
            seen[score.genes] = first, weight * len(good), score
    found = projected([story.point(genes) for genes in seen])
    rounds, last = [first for first, _, _ in seen.values()], max(story.history.rounds)
    thirds = [(1, "early"), (2, "middle"), (3, "late")] if last >= 3 else [(3, "candidate")]
    series = []
    for third, name in thirds:
        some = [
            place for place, index in enumerate(rounds)
            if len(thirds) == 1 or min(3, (index - 1) * 3 // last + 1) == third
        ]  # fmt: skip
        told = [(weight, score) for _, weight, score in seen.values()]
        series.append(
            Series(
                f"{name} rounds" if len(thirds) > 1 else name,
                [tuple(found.points[place]) for place in some],
                False,
                ("grey", "green", "blue")[third - 1],
                ("square", "triangle", "circle")[third - 1],
                opacity=0.75,
                radii=[1.8 + 2.2 * sqrt(min(told[place][0], 4.0)) for place in some],
                titles=[f"{_told(told[place][1])}; weight {told[place][0]:.2f}" for place in some],
            )
        )
    champion = story.champion
    if champion is not None and champion.genes in seen:
        place = list(seen).index(champion.genes)
        series.append(Series("champion", [tuple(found.points[place])], False, "orange", "diamond",
                             radii=[6.0]))  # fmt: skip
    chart = Chart("Policy space, seen from above", "first principal axis",
                  "second principal axis", series, bare=True)  # fmt: skip
    return plot(chart), found


def terms(story: Story) -> list[Scene]:
    """Each two terms against each other, over all candidates that were measured on everything."""
    scores = list(story.scored.values())
    names = list(scores[0].terms) if scores else []
    champion = story.champion
    drawn = []
    for place, across in enumerate(names):
        for up in names[place + 1 :]:
            points = [(score.terms[across], score.terms[up]) for score in scores]
            told = [_told(score) for score in scores]
            series = [Series("candidates", points, False, "grey", opacity=0.7, titles=told)]
            both = [story.scored.get(champion.genes), champion] if champion is not None else []
            for score, name in zip(both, ("champion, stitched", "champion"), strict=False):
                if score is not None:
                    best = [(score.terms[across], score.terms[up])]
                    hollow = score is not champion
                    series.append(
                        Series(name, best, False, "orange", "diamond", hollow, radii=[5.5])
                    )
            most = _rim([y for _, y in points])
            drawn.append(plot(Chart(f"{spelt(up).capitalize()} against {spelt(across)}",
                                    spelt(across), spelt(up), series, most=most)))  # fmt: skip
    return drawn


def stitched(story: Story) -> tuple[Scene, list[tuple[float, float]]]:
    """Finalists: what they scored as stitched, and pruned exactly."""
    by_name = {score.candidate: score for score in story.scored.values()}
    both = [
        (by_name[score.candidate], score)
        for score in story.history.exact.values()
        if score.ok and score.candidate in by_name
    ]
    points = [(one.total, other.total) for one, other in both]
    labels = [one.candidate for one, _ in both]
    series = [Series("", points, False, "blue", "diamond", labels=labels)]
    chart = Chart("Finalists, twice measured", "score as stitched", "score pruned exactly", series)
    return plot(chart), points


def front(story: Story) -> list[Scene]:
    """Each two terms of the front."""
    names = list(story.front[0]["terms"])
    drawn = []
    for place, across in enumerate(names):
        for up in names[place + 1 :]:
            every = [(row["terms"][across], row["terms"][up]) for row in story.front]
            best = [point for point, row in zip(every, story.front, strict=True) if row["crowned"]]
            told = [row["candidate"] for row in story.front]
            series = [
                Series("front", every, len(names) == 2, "blue", titles=told),
                Series("crowned", best, False, "orange", "diamond", radii=[5.5]),
            ]
            drawn.append(plot(Chart(f"The front: {spelt(up)} against {spelt(across)}",
                                    spelt(across), spelt(up), series)))  # fmt: skip
    return drawn


def _side_by_side(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Points of a round a little apart, always the same way, so that equals can be told."""
    found: list[tuple[float, float]] = []
    for place, (x, y) in enumerate(points):
        found.append((x + ((place * 7) % 9 - 4) * 0.04, y))
    return found


def _rim(values: Sequence[float]) -> float | None:
    """Where a few values lie far off, the highest that is worth showing in proportion."""
    if len(values) < 8:
        return None
    low, middle, high = (float(v) for v in np.percentile(values, [0, 50, 95]))
    rim = max(high, low + MOST_SPREAD * (middle - low))
    return rim if max(values) > low + 1.5 * (rim - low) else None


def _told(score: Score) -> str:
    share = "" if score.share == 1 else f", placed by {score.share:.1%} of the calibration"
    return f"{score.candidate}: {score.total:.4f}{share}"
