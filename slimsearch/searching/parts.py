"""What a search works with, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slimsearch.contracts import Executor, Solver, Strategy
from slimsearch.model.batch import Batch
from slimsearch.record.candidate import Genes, Score
from slimsearch.record.history import raised_sentence
from slimsearch.record.run import Run
from slimsearch.searching.evaluate import Evaluator
from slimsearch.searching.space import Space
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings
from slimsearch.teaching.lessons import Subject
from slimsearch.teaching.training import Trainer


@dataclass(frozen=True)
class Loop:
    """The live parts of a search."""

    settings: Settings
    space: Space
    evaluator: Evaluator
    hessian_batches: Sequence[Batch]
    tokens: str
    fingerprint: Callable[[], Mapping[str, Any]]  # of its level store; hashes the model
    solver: Solver
    strategy: Strategy
    executor: Executor
    trainer: Trainer | None  # the projector
    pairs: Subject
    texts: Subject

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the calibration, those that candidates race on."""
        return self.evaluator.shares


@dataclass
class Position:
    """Where a search stands: the projector's version and each genes' latest score.

    `measured` holds the latest measurement of a candidate on a share of the calibration; `seen` is
    where the strategy's outlook is from; `idle` counts the rounds in a row that hardly brought a
    better champion.
    """

    projector: int
    scores: dict[Genes, Score]
    measured: dict[tuple[str, float], Score] = field(default_factory=dict)
    champion: Score | None = None
    seen: Genes | None = None
    idle: int = 0


def note_raised(loop: Loop, run: Run, watch: Watch, during: str) -> None:
    """Journals the dampings that had to be raised since this was last called."""
    if raised := loop.evaluator.store.take_raised():
        run.add_raised(during, raised)
        watch.note(f"{during}: {raised_sentence(raised)}")
