"""What a search talks about: a candidate policy, its score, a closed round, a row. All frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite

from slimsearch.policy import Policy

Genes = tuple[int, ...]  # one index into each gene's choices


@dataclass(frozen=True)
class Candidate:
    """One policy on trial; `name` is '7-03' for the third candidate of round 7."""

    name: str
    genes: Genes
    policy: Policy


@dataclass(frozen=True, slots=True)
class Score:
    """What one candidate got. Lower totals are better; a failed candidate totals infinity."""

    candidate: str
    genes: Genes
    total: float
    terms: dict[str, float] = field(default_factory=dict)
    sparsity: float = 0.0
    seconds: float = field(default=0.0, compare=False)
    projector: int = 0  # the projector version it was measured under
    share: float = 1.0  # of the calibration it was measured on
    failure: str = ""

    @property
    def ok(self) -> bool:
        return isfinite(self.total)


def failed(candidate: Candidate, projector: int, reason: str, share: float = 1.0) -> Score:
    return Score(
        candidate.name, candidate.genes, inf, projector=projector, share=share, failure=reason
    )


@dataclass(frozen=True)
class Hints:
    """What is known before the first candidate."""

    allocations: Mapping[str, Genes] = field(default_factory=dict)  # by name
    costs: tuple[tuple[float, ...], ...] = ()  # gene x choice -> predicted loss; () if unknown


@dataclass(frozen=True)
class Outlook:
    """What changes of some genes are foretold to cost, one gene at a time, to second order."""

    genes: Genes
    along: tuple[tuple[float, ...], ...] = ()  # gene x choice -> by the loss's gradient
    away: tuple[tuple[float, ...], ...] = ()  # gene x choice -> by how far the weights move


@dataclass(frozen=True)
class ProjectorStep:
    """How one projector step went: what it lowers, on held-out pairs, before and after."""

    before: float | None  # None: not a finite number
    after: float | None
    kept: bool
    note: str = ""


@dataclass(frozen=True)
class Round:
    """One closed round; `weights` are the neighbour-density weights of its scores, in order."""

    index: int
    scores: tuple[Score, ...]
    weights: tuple[float, ...]
    champion: Score
    projector: int  # the version after this round's step
    step: ProjectorStep | None
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Row:
    """One line of the final table: a model and what it can do on held-out data."""

    name: str
    sparsity: float
    figures: dict[str, float]  # NaN where nothing could be measured
