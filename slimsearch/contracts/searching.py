"""Sockets of the search: what goes, who solves it, what it is worth, who proposes and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from slimsearch.budgets.budget import Budget
    from slimsearch.model.batch import Calibrated
    from slimsearch.model.vlm import VLM
    from slimsearch.policy import Body, Gene, Table
    from slimsearch.record.candidate import Candidate, Genes, Hints, Outlook, Score
    from slimsearch.searching.evaluate import Evaluator
    from slimsearch.surgery.hessian import Hessian
    from slimsearch.surgery.level_store import LevelStore


Edits = Mapping[str, Any]  # part of a model -> what is done to it


class Family(ABC):
    """One kind of removal, such as a sparsity ratio for each decoder block.

    `choices("blocks.*", "-0.10..+0.10 by 0.05", 0.5)` are the numbers that a line of its table
    offers; `genes({"blocks.*": ...}, body, 0.5)` is what can be searched of a table;
    `edits({"blocks.0": 0.4}, body)` is what numbers mean: matrices and their levels, or blocks and
    how they run (route.Step). `apply` puts edits on a model and `restore` takes every one of them
    off again; both leave alone what other families did.
    """

    # Lines that hold a word instead of a number, and which words; without the line, the first.
    words: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @abstractmethod
    def choices(self, line: str, value: str | float, ratio: float) -> tuple[float, ...]: ...

    @abstractmethod
    def genes(self, table: Table, body: Body, ratio: float) -> list[Gene]: ...

    @abstractmethod
    def edits(self, table: Table, body: Body) -> Edits: ...

    @abstractmethod
    def apply(self, edits: Edits, vlm: VLM, store: LevelStore) -> None: ...

    @abstractmethod
    def restore(self, vlm: VLM, store: LevelStore) -> None: ...

    def removed(self, edits: Edits, body: Body) -> float:
        """How many prunable weights the edits make zero."""
        return 0.0


@dataclass(frozen=True)
class Pruned:
    """One matrix at one level. `error` is half tr(dW H dW^T), for every solver alike."""

    weights: Tensor  # [rows, columns]
    error: float


class Solver(ABC):
    """Chooses which weights of a matrix go, and mends those that stay.

    `prune(weights [rows, columns], hessian, [0.4, 0.5])` gives one Pruned for each level, with
    exactly round(level * size) zeros each. Pure: neither argument is changed.
    """

    by_set: ClassVar[bool] = False  # it reads `hessian.parts`, a diagonal for each calibration set
    mends: ClassVar[bool] = True  # else kept weights stay as they were, and follow no drift either

    @abstractmethod
    def prune(self, weights: Tensor, hessian: Hessian, levels: Sequence[float]) -> list[Pruned]: ...

    def prune_together(
        self, matrices: Sequence[Tensor], hessian: Hessian, levels: Sequence[Sequence[float]]
    ) -> list[list[Pruned]]:
        """Several matrices that read the same input, each at its own levels."""
        return [
            self.prune(weights, hessian, some) if some else []
            for weights, some in zip(matrices, levels, strict=True)
        ]


class Architecture(ABC):
    """What is particular to a family of models; almost no code. Its file is named after the
    model_type.

    Decoder blocks are where transformers has them, in `get_decoder().layers`, and the vision tower
    is `get_encoder(modality="image")`; names on disk are as transformers reads them.
    """

    # Roles that read the same input, in the order in which a block computes them: role -> path
    # inside the block. None where a language model with a file of its own is inside.
    stages: ClassVar[tuple[Mapping[str, str], ...] | None]
    # What maps pictures into the decoder, as paths in the base model: a module, or a list of them.
    projectors: ClassVar[tuple[str, ...]] = ()
    # Further inputs of the model, a number for each token: 1 where it belongs to "pictures", or
    # where it is not of the question, "answers".
    marks: ClassVar[Mapping[str, str]] = {}
    # How a conversation is written where a checkpoint brings no chat template (Jinja).
    template: ClassVar[str] = ""
    # Whether a picture is its pixels, or tiles of them, of one size and nothing beside: then graphs
    # can be written of the vision side.
    plain: ClassVar[bool] = False
    # Whether it is as many tiles of one size as its shape asks for: then FLOPs can be counted.
    tiles: ClassVar[bool] = False
    most_turns: ClassVar[int | None] = None  # questions that a conversation may have

    @property
    def sees(self) -> bool:
        return bool(self.projectors)


class Term(ABC):
    """One part of the objective; lower is better. In objectives/, named after its file."""

    needs_pairs: ClassVar[bool] = False  # it reads pairs, so it changes when the projector moves
    is_cost: ClassVar[bool] = False  # the more is removed, the less it is: no ratio need be held

    def prepare(self, vlm: VLM, calibrated: Calibrated) -> None:
        """Called with the dense model, for what a term compares with; once for each part of the
        calibration that it will be measured on."""
        return None

    @abstractmethod
    def measure(self, vlm: VLM, calibrated: Calibrated) -> float: ...

    def noted(self, vlm: VLM) -> dict[str, Any]:
        """What the term measured of this machine, as JSON: a run keeps it, to resume alike."""
        return {}

    def recall(self, noted: Mapping[str, Any]) -> None:
        """Takes what `noted` gave when the run began."""
        return None


class Strategy(ABC):
    """Proposes genes: a pure function of (seed, what it was told).

    Before the first round, `start` is told the `allocations` that it named and what each gene is
    predicted to cost. A round: `ask()` gives fresh genes; the search scores them, and `survivors`
    again when the projector has moved; `tell(scores)` takes all of those: totals, terms and genes.
    Where it `looks_ahead`, `turn` is told what changes of each new champion would cost (before the
    first round, of the optimal allocation); without a level store nothing is told, and what is
    told is empty where gradients take too much memory.
    """

    allocations: ClassVar[tuple[str, ...]] = ()  # names of allocation.py that it begins with
    weighs_terms: ClassVar[bool] = False  # it looks at each term by itself, not at the total
    looks_ahead: ClassVar[bool] = False  # it wants an outlook from each new champion

    @abstractmethod
    def __init__(self, budget: Budget, candidates: int, survivors: int, seed: int): ...

    def start(self, hints: Hints) -> None:
        """Called once before the first `ask`."""
        return None

    def turn(self, outlook: Outlook) -> None:
        """Called before an `ask`."""
        return None

    @abstractmethod
    def ask(self) -> list[Genes]: ...

    @abstractmethod
    def tell(self, scores: Sequence[Score]) -> None: ...

    @property
    @abstractmethod
    def survivors(self) -> list[Genes]: ...


class Executor(ABC):
    """Scores candidates, wherever that happens, and yields the scores in the order given.

    `projector` is the version on the model now; `known` holds, by candidate, what it scored before,
    which need not be measured again; `share` of the calibration is what they are measured on.
    """

    @abstractmethod
    def score(
        self,
        candidates: Sequence[Candidate],
        evaluator: Evaluator,
        projector: int,
        known: Mapping[str, Sequence[Score]],
        share: float = 1.0,
    ) -> Iterator[Score]: ...

    def take_notes(self) -> list[str]:
        """What happened beside the scores that the user should read, since this was last asked."""
        return []

    def close(self) -> None:  # noqa: B027  an executor may hold nothing
        """Gives back what it holds; the next `score` would begin anew."""
