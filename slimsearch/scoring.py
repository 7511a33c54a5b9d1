"""Figures out of marks, how sure they are, and whether two models really differ.

A mark holds addends by name (`right`, `count`); a figure is a function of their sums. So a figure's
95% interval is that of the same function over resampled units: the bootstrap by percentiles. What
belongs together, such as two questions about one picture, is one unit and is drawn together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, lgamma, log
from typing import Any

import numpy as np
from numpy import ndarray

RESAMPLES = 1000
AT_ONCE = 1 << 23  # weights that are held at once
WHOLE = ""  # the group that everything is in

Sums = Mapping[str, Any]  # by addend: a number, or an array over resamples
# Sums by group -> figures by group; WHOLE is the first of both.
Figures = Callable[[Mapping[str, Sums]], dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Mark:
    """What one answer adds, to the whole and to each group that its question is in."""

    unit: str
    groups: tuple[str, ...]
    addends: Mapping[str, float]


@dataclass(frozen=True)
class Figure:
    """A value and its 95% interval; None for the bounds of a single unit."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """One model's figure less another's over the same units, and how likely chance gives it."""

    value: float
    low: float
    high: float
    p: float


def ratio(part: Any, whole: Any) -> Any:
    """part / whole, and NaN where there is no whole; for numbers and arrays alike."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole != 0)


def measured(marks: Sequence[Mark], figures: Figures, seed: int) -> dict[str, dict[str, Figure]]:
    """Every figure of every group with its interval."""
    sheet = _Sheet(marks, _units(marks))
    values = figures(sheet.sums())
    drawn = _drawn(sheet, figures, seed) if len(sheet.units) > 1 else None
    return {
        group: {
            name: Figure(float(value), *(_bounds(drawn[group][name]) if drawn else (None, None)))
            for name, value in named.items()
        }
        for group, named in values.items()
    }


def compared(
    first: Sequence[Mark], second: Sequence[Mark], figures: Figures, seed: int
) -> dict[str, dict[str, Difference]]:
    """How `first` differs from `second`, by a paired bootstrap over the units that both have."""
    shared = [unit for unit in _units(first) if unit in set(_units(second))]
    if len(shared) < 2:
        return {}
    sheets = [_Sheet(marks, shared) for marks in (first, second)]
    mine, theirs = (figures(sheet.sums()) for sheet in sheets)
    my_draws, their_draws = (_drawn(sheet, figures, seed) for sheet in sheets)
    return {
        group: {
            name: _difference(value, theirs[group][name], my_draws[group][name],
                              their_draws[group][name])
            for name, value in named.items() if name in theirs.get(group, {})
        }
        for group, named in mine.items()
    }  # fmt: skip


def mcnemar(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, Any] | None:
    """Questions that only one of both has right (1, else 0), and the exact binomial test that they
    are as many; None where an answer is something between."""
    pairs = [(right, second[name]) for name, right in first.items() if name in second]
    if not pairs or any(value not in (0, 1) for pair in pairs for value in pair):
        return None
    only_first, only_second = (pairs.count((a, 1 - a)) for a in (1, 0))
    return {
        "only_first": only_first,
        "only_second": only_second,
        "p": _binomial(min(only_first, only_second), only_first + only_second),
    }


class _Sheet:
    """Addends summed by unit, a column for each (group, addend)."""

    def __init__(self, marks: Sequence[Mark], units: Sequence[str]):
        self.units = units
        row = {unit: place for place, unit in enumerate(units)}
        marks = [mark for mark in marks if mark.unit in row]
        self._columns = list(dict.fromkeys(
            (group, name) for group in (WHOLE, *sorted({g for m in marks for g in m.groups}))
            for mark in marks if group in (WHOLE, *mark.groups) for name in mark.addends
        ))  # fmt: skip
        place = {column: number for number, column in enumerate(self._columns)}
        self.values = np.zeros((len(units), len(self._columns)))
        for mark in marks:
            for group in (WHOLE, *mark.groups):
                for name, value in mark.addends.items():
                    self.values[row[mark.unit], place[group, name]] += value

    def sums(self, weights: ndarray | None = None) -> dict[str, dict[str, Any]]:
        """Sums by group and addend; with weights [draws, units], an array over the draws."""
        totals = self.values.sum(0) if weights is None else weights @ self.values
        found: dict[str, dict[str, Any]] = {}
        for (group, name), total in zip(self._columns, np.moveaxis(totals, -1, 0), strict=True):
            found.setdefault(group, {})[name] = total
        return found


def _drawn(sheet: _Sheet, figures: Figures, seed: int) -> dict[str, dict[str, ndarray]]:
    """Every figure over all resamples; the same units are drawn for the same seed."""
    pieces = [figures(sheet.sums(weights)) for weights in _weights(len(sheet.units), seed)]
    return {
        group: {name: np.concatenate([piece[group][name] for piece in pieces]) for name in named}
        for group, named in pieces[0].items()
    }


def _weights(units: int, seed: int) -> Iterator[ndarray]:
    """How often each unit is drawn, [draws, units]."""
    generator = np.random.default_rng(seed)
    step = max(1, AT_ONCE // units)
    for start in range(0, RESAMPLES, step):
        draws = min(step, RESAMPLES - start)
        yield generator.multinomial(units, np.full(units, 1 / units), draws).astype(float)


def _bounds(draws: ndarray) -> tuple[float | None, float | None]:
    sound = draws[np.isfinite(draws)]
    if not len(sound):
        return None, None
    low, high = np.percentile(sound, [2.5, 97.5])
    return float(low), float(high)


def _difference(mine: Any, theirs: Any, my_draws: ndarray, their_draws: ndarray) -> Difference:
    """p is twice the smaller share of resamples on either side of no difference."""
    draws = my_draws - their_draws
    draws = draws[np.isfinite(draws)]
    low, high = _bounds(draws)
    side = min((draws <= 0).sum(), (draws >= 0).sum())
    p = min(1.0, 2 * (int(side) + 1) / (len(draws) + 1))
    missing = float("nan")
    return Difference(
        float(mine - theirs), missing if low is None else low, missing if high is None else high, p
    )


def _binomial(least: int, count: int) -> float:
    """Two-sided: how likely a fair coin falls at most `least` or at least `count - least` times."""
    tail = sum(
        exp(lgamma(count + 1) - lgamma(k + 1) - lgamma(count - k + 1) - count * log(2))
        for k in range(least + 1)
    )
    return min(1.0, 2 * tail)


def _units(marks: Sequence[Mark]) -> list[str]:
    return list(dict.fromkeys(mark.unit for mark in marks))
