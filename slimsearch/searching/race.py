"""Scores candidates on growing shares of the calibration: the worse drop out early.

Every candidate of a race sees the same rows, so what one has over another is theirs and not the
draw's. One that drops out keeps its place: its total is the winner's on all of the calibration
plus what it lost, where it was measured last, to the best there of those that went all the way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from math import ceil

from slimsearch.errors import SettingsError
from slimsearch.record.candidate import Candidate, Score

PROMOTED = 1 / 3  # of the candidates of a rung go on to the next

Measure = Callable[[Sequence[Candidate], float], list[Score]]  # on a share of the calibration


def rungs(setting: str) -> tuple[float, ...]:
    """The shares of the calibration, '0.125, 0.5' and then all of it."""
    try:
        shares = [float(part) for part in setting.split(",") if part.strip()]
    except ValueError:
        shares = [0.0]
    if any(not 0 < share < 1 for share in shares) or shares != sorted(set(shares)):
        raise SettingsError(
            f"racing = '{setting}' cannot be read: give shares of the calibration that grow, "
            f"between 0 and 1, such as '0.125, 0.5', or '' to score every candidate on all of it."
        )
    return (*shares, 1.0)


def race(
    candidates: Sequence[Candidate],
    shares: Sequence[float],
    measure: Measure,
    sure: Collection[str] = (),
) -> list[Score]:
    """A score for every candidate, in their order; at least one is measured on everything.

    Those named `sure` never drop out: what they score on everything is known already, or wanted.
    """
    found: dict[str, list[Score]] = {candidate.name: [] for candidate in candidates}
    running = list(candidates)
    for share in shares:
        scores = measure(running, share)
        for score in scores:
            found[score.candidate].append(score)
        sound = sorted((s for s in scores if s.ok), key=lambda score: score.total)
        on = {score.candidate for score in sound[: ceil(PROMOTED * len(running))]}.union(sure)
        running = [candidate for candidate in running if candidate.name in on]
    finished = [scores for scores in found.values() if len(scores) == len(shares) and scores[-1].ok]
    if not finished:
        return [scores[-1] for scores in found.values()]
    least = [min(scores[rung].total for scores in finished) for rung in range(len(shares))]
    return [_placed(scores, least) for scores in found.values()]


def measurements(candidates: int, shares: Sequence[float]) -> list[int]:
    """How many candidates are measured on each share."""
    found = [candidates]
    for _ in shares[1:]:
        found.append(ceil(PROMOTED * found[-1]))
    return found


def _placed(scores: Sequence[Score], least: Sequence[float]) -> Score:
    """The last score, its total as it would be on all of the calibration."""
    last = scores[-1]
    return replace(last, total=least[-1] + last.total - least[len(scores) - 1])
