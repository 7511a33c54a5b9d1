"""Which candidate is best where several terms count: the order that crowns a champion.

`total` is the weighted sum. `knee` is where a front bends: the least sum of the terms, each
measured from its best to its worst on the front. `bytes<=3e7` is the knee of the other terms among
those that meet the bound.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from slimsearch.errors import SettingsError, did_you_mean
from slimsearch.record.candidate import Score

AUTO, TOTAL, KNEE = "auto", "total", "knee"


@dataclass(frozen=True)
class Pick:
    """How to choose: by `total`, or by the knee of the terms under a bound on one of them."""

    total: bool
    term: str = ""  # of the bound, if there is one
    most: float = 0.0

    def meets(self, score: Score) -> bool:
        return not self.term or score.terms.get(self.term, 0.0) <= self.most

    def order(self, scores: Sequence[Score], among: Sequence[Score]) -> list[Score]:
        """Sound scores, best first; terms are measured on the front `among`."""
        sound = [score for score in scores if score.ok]
        if self.total:
            return sorted(sound, key=lambda score: score.total)
        names = [name for name in (sound[0].terms if sound else ()) if name != self.term]
        spans = {name: _span([score.terms[name] for score in among]) for name in names}

        def badness(score: Score) -> tuple[float, float]:
            over = 0.0 if self.meets(score) else score.terms[self.term] - self.most
            return over, sum((score.terms[n] - low) / span for n, (low, span) in spans.items())

        return sorted(sound, key=badness)


def parse(text: str, terms: Collection[str], several: bool) -> Pick:
    """What `--pick` says; auto is the knee where `several` terms count by themselves."""
    if text == AUTO:
        return Pick(total=not several)
    if text in (TOTAL, KNEE):
        return Pick(total=text == TOTAL)
    match = re.fullmatch(r"\s*([A-Za-z_]+)\s*<=\s*(\S+)\s*", text)
    try:
        most = float(match[2]) if match else float("nan")
    except ValueError:
        most = float("nan")
    if match is None or most != most:
        raise SettingsError(
            f"pick = '{text}' cannot be read. Give knee, total, or a bound on a term of the "
            f"objective, such as 'text_loss<=3.5'."
        )
    if match[1] not in terms:
        raise SettingsError(
            f"pick names '{match[1]}', which is no term of the objective."
            f"{did_you_mean(match[1], list(terms))}"
        )
    return Pick(total=False, term=match[1], most=most)


def front(scores: Sequence[Score]) -> list[Score]:
    """Those that no other beats in one term without losing in another, by their first term."""
    sound = [score for score in scores if score.ok]
    best = [score for score in sound if not any(_beats(other, score) for other in sound)]
    unlike = {tuple(score.terms.values()): score for score in reversed(best)}
    return sorted(unlike.values(), key=lambda score: tuple(score.terms.values()))


def _beats(a: Score, b: Score) -> bool:
    pairs = [(a.terms[name], b.terms[name]) for name in b.terms]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The least of some values, and how far it is to the greatest; 1 where that is nothing."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return low, (high - low) or 1.0
