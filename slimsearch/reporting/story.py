"""What a run's folder tells, read without a model and without torch.

Runs of earlier releases kept less: what they lack is None or empty here, and a report says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch import files, policy
from slimsearch import settings as choices
from slimsearch.errors import RunError
from slimsearch.policy import SPARSITY, Table
from slimsearch.record import history, results
from slimsearch.record.candidate import Row, Score
from slimsearch.record.history import History
from slimsearch.settings import DEMO, Settings


@dataclass(frozen=True)
class Story:
    """A run, its evaluations, and what was timed of it."""

    name: str
    folder: Path
    settings: Settings
    history: History
    policy: Mapping[str, Table]  # of the champion; empty while there is none
    evaluations: tuple[Mapping[str, Any], ...]
    benches: tuple[Mapping[str, Any], ...]
    front: tuple[Mapping[str, Any], ...]
    times: Mapping[str, Mapping[str, float]]
    machines: tuple[tuple[str, int], ...]

    @property
    def model(self) -> str:
        return "the demo model" if self.settings.model == DEMO else Path(self.settings.model).name

    @property
    def scope(self) -> Mapping[str, Any]:
        """What there was to prune and to measure on; empty for runs that kept no count."""
        return self.history.scope or {}

    @property
    def prunable(self) -> int:
        """How many weights may be pruned."""
        return sum(rows * columns for _, rows, columns in self.scope["matrices"])

    @property
    def whole(self) -> int:
        """Bytes of the dense model."""
        return self.scope["parameters"] * self.scope["bytes_each"]

    def packed(self, sparsity: float) -> float:
        """Bytes with a bit for each prunable weight, and the values that stay."""
        gone = round(self.prunable * sparsity) * self.scope["bytes_each"]
        return self.whole - gone + self.prunable / 8

    @cached_property
    def rows(self) -> list[Row]:
        """The run's own table, as far as it came."""
        return [
            replace(row, figures={k: v for k, v in row.figures.items() if not isnan(v)})
            for row in self.history.rows.values()
        ]

    def row(self, beginning: str) -> Row | None:
        """The last row whose name begins so."""
        return next((row for row in reversed(self.rows) if row.name.startswith(beginning)), None)

    @property
    def dense(self) -> Row | None:
        return self.row("dense")

    @property
    def uniform(self) -> Row | None:
        """The same solver and calibration without a search."""
        return next((row for row in self.rows if row.name == f"uniform {self.settings.solver}"),
                    None)  # fmt: skip

    @property
    def searched(self) -> Row | None:
        """The model that was written."""
        return self.row("searched")

    @property
    def scored(self) -> dict[tuple[int, ...], Score]:
        """The latest sound score on all of the calibration, by genes."""
        every = [score for score in self.history.scores.values() if score.ok and score.share == 1]
        return {score.genes: score for score in every}

    @property
    def champion(self) -> Score | None:
        """The winner, exactly pruned; while there is none, the best of the last round."""
        name = (self.history.end or {}).get("champion")
        exact = [score for score in self.history.exact.values() if score.candidate == name]
        if exact:
            return exact[-1]
        named = [score for score in self.scored.values() if score.candidate == name]
        if named:
            return named[-1]
        rounds = list(self.history.rounds.values())
        return rounds[-1].champion if rounds else None

    @property
    def tasks(self) -> dict[str, list[Mapping[str, Any]]]:
        """Evaluations of the same questions, by what `eval` calls their files."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for result in self.evaluations:
            found.setdefault(Path(result["file"]).stem, []).append(result)
        return found

    @property
    def genes(self) -> list[tuple[str, str, list[float]]]:
        """Family, part and choices of each gene."""
        return [(family, key, list(some)) for family, key, some in self.scope.get("genes", ())]

    def point(self, genes: Sequence[int]) -> list[float]:
        """Where a candidate stands in policy space."""
        return [some[index] for (_, _, some), index in zip(self.genes, genes, strict=True)]

    @property
    def sparsities(self) -> dict[str, float]:
        """The champion's share of zeros by matrix, counted on the model that was written."""
        return dict((self.history.end or {}).get("matrices", {}))

    @cached_property
    def sensitivity(self) -> dict[str, float]:
        """What pruning each part to the ratio is predicted to cost, by its gene's name."""
        costs = self.history.hints.costs if self.history.hints else ()
        if len(costs) != len(self.genes):
            return {}
        return {
            key: cost[int(np.abs(np.array(some) - self.settings.ratio).argmin())]
            for (family, key, some), cost in zip(self.genes, costs, strict=True)
            if family == SPARSITY
        }


def read(folder: Path) -> Story:
    """A run's story; a run that another process is still writing is read as far as it came."""
    found = history.read(folder)
    if not found.start:
        raise RunError(f"{folder} stopped before it began: there is nothing to report.")
    if found.end:
        found.check_written("best.toml")
        found.check_written("front/")
        found.check_written("samples/")
    best = folder / "best.toml"
    tables = policy.read(best).tables if found.end else {}
    return Story(
        name=folder.resolve().name,
        folder=folder,
        settings=choices.read(folder / history.SETTINGS),
        history=found,
        policy=tables,
        evaluations=tuple(results.all_in(folder / results.FOLDER)),
        benches=read_benches(sorted(folder.glob("bench*.json"))),
        front=tuple(_front(folder)),
        times=history.times(folder),
        machines=tuple(history.machines(folder)),
    )


def read_benches(places: Sequence[Path]) -> tuple[Mapping[str, Any], ...]:
    """What `slimsearch bench --json` printed, each with its file's name as `file`."""
    found = []
    for place in places:
        try:
            told = json.loads(place.read_text("utf-8"))
            sound = {"rows", "verdict", "notes"} <= told.keys()
        except (OSError, ValueError, AttributeError) as error:
            raise RunError(f"{place} cannot be read as a bench: {error}.") from None
        if not sound:
            raise RunError(
                f"{place} is no bench: it has no rows. Keep what `slimsearch bench --json` prints."
            )
        found.append({**told, "file": place.name})
    return tuple(found)


def digest(file: Path) -> str:
    """The beginning of a file's SHA-256, enough to tell it from another."""
    return files.sha256(file)[:12]


def _front(folder: Path) -> list[Mapping[str, Any]]:
    file = folder / "front" / "front.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else []
