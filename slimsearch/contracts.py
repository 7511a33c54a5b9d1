"""Every socket of slimsearch on one page. A plug-in derives from one of these, nothing else.

A plug-in that has choices is a dataclass whose field names are names of settings; `assembly` fills
them in. Types are in modules of their names; Gene is in policy.py, Score in candidate.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from slimsearch.errors import InputError
from slimsearch.scoring import WHOLE, Mark, ratio

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL.Image import Image
    from torch import Tensor

    from slimsearch.batch import Calibrated
    from slimsearch.budget import Budget
    from slimsearch.candidate import Candidate, Genes, Hints, Score
    from slimsearch.evaluate import Evaluator
    from slimsearch.hessian import Hessian
    from slimsearch.level_store import LevelStore
    from slimsearch.policy import Gene, Matrix, Ranges
    from slimsearch.scoring import Sums
    from slimsearch.vlm import VLM

Words = Callable[[str], list[int]]  # text into a model's tokens


class Family(ABC):
    """One kind of removal, such as a sparsity ratio for each decoder block.

    `genes({"blocks.*": "-0.10..+0.10 by 0.05"}, matrices, 0.5)` is what can be searched;
    `edits({"blocks.0": 0.4}, matrices)` is what that means for each matrix;
    `apply` puts edits on the model and `restore` takes every one of them off again.
    """

    @abstractmethod
    def genes(self, ranges: Ranges, matrices: Sequence[Matrix], ratio: float) -> list[Gene]: ...

    @abstractmethod
    def edits(
        self, values: Mapping[str, float], matrices: Sequence[Matrix]
    ) -> dict[str, float]: ...

    @abstractmethod
    def apply(self, edits: Mapping[str, float], vlm: VLM, store: LevelStore) -> None: ...

    @abstractmethod
    def restore(self, vlm: VLM, store: LevelStore) -> None: ...

    @abstractmethod
    def removed(self, edits: Mapping[str, float], matrices: Sequence[Matrix]) -> float:
        """How many weights the edits remove."""


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
    """

    allocations: ClassVar[tuple[str, ...]] = ()  # names of allocation.py that it begins with
    weighs_terms: ClassVar[bool] = False  # it looks at each term by itself, not at the total

    @abstractmethod
    def __init__(self, budget: Budget, candidates: int, survivors: int, seed: int): ...

    def start(self, hints: Hints) -> None:
        """Called once before the first `ask`."""
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

    `projector` is the version on the model now; `earlier` holds, by candidate, scores whose terms
    without pairs can be taken over; `share` of the calibration is what they are measured on.
    """

    @abstractmethod
    def score(
        self,
        candidates: Sequence[Candidate],
        evaluator: Evaluator,
        projector: int,
        earlier: Mapping[str, Score],
        share: float = 1.0,
    ) -> Iterator[Score]: ...

    def take_notes(self) -> list[str]:
        """What happened beside the scores that the user should read, since this was last asked."""
        return []

    def close(self) -> None:  # noqa: B027  an executor may hold nothing
        """Gives back what it holds; the next `score` would begin anew."""


class Exporter(ABC):
    """One form of a model. `fill` writes it into a folder that is being made: `artefact.write`
    makes that folder, copies what stands beside the weights (configuration, tokenizer, processor),
    writes slimsearch.json and the card, and renames it when everything is whole.

    Each form keeps to a folder of its own, named after the exporter (`hf` alone writes at the top),
    so that one export can hold several. What `fill` returns is recorded in slimsearch.json under
    `exports`. An exporter that has choices is a dataclass; `exporting.Choices` lists them all.
    """

    @abstractmethod
    def fill(self, vlm: VLM, folder: Path) -> dict[str, Any]: ...


class Runtime(ABC):
    """An engine. `open(folder)` brings an export into it, ready for the first token."""

    forms: ClassVar[tuple[str, ...]]  # the exporters whose forms it reads, the best first

    @abstractmethod
    def absent(self) -> str | None:
        """Why the engine is not to be had here and what to do, in one line; None where it is."""

    @abstractmethod
    def open(self, folder: Path, threads: int = 0) -> Session:
        """`threads` = 0 leaves their number to the engine."""


class Session(ABC):
    """A model in an engine: pictures and tokens in, logits out, keys and values kept inside.

    Several rows are read side by side. Rows are padded on the left: `mask` is 1 where a token is
    real and 0 where it is padding, over everything that was read since `forget`; `positions` count
    the real tokens of a row from 0. `decoding.greedy` is the loop around it. Arrays are fp32 or
    int64 and lie in host memory.
    """

    room: int  # tokens, read and said, that a row can hold
    process: int | None = None  # the engine's own, where it has one

    @abstractmethod
    def see(self, pixels: ndarray) -> ndarray:
        """Pictures [n, channels, height, width] -> what stands for them [n, tokens, width]."""

    @abstractmethod
    def embed(self, ids: ndarray) -> ndarray:
        """[rows, tokens] -> [rows, tokens, width]."""

    @abstractmethod
    def step(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        """Reads [rows, tokens, width] behind what was read before; the last token's logits,
        [rows, vocabulary]. mask is [rows, all tokens so far], positions [rows, tokens]."""

    def read(
        self, ids: ndarray, mask: ndarray, positions: ndarray, pictures: Sequence[Mapping[str, Any]]
    ) -> ndarray:
        """Reads whole prompts with the pictures in them, on an empty cache, as `step` does what
        comes after; for models whose pictures are more than what stands at their places."""
        raise InputError("This engine takes no such pictures; --runtime torch does.")

    def step_all(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        """As `step`, with every token's logits, [rows, tokens, vocabulary]; one token after the
        other where an engine gives the last one's only."""
        past = mask.shape[1] - embeds.shape[1]
        return np.stack(
            [
                self.step(embeds[:, n : n + 1], mask[:, : past + n + 1], positions[:, n : n + 1])
                for n in range(embeds.shape[1])
            ],
            axis=1,
        )

    @abstractmethod
    def forget(self) -> None:
        """Empties the cache; the next step may have another number of rows."""

    def close(self) -> None:
        """Gives back what the engine holds."""
        return None


@dataclass(frozen=True)
class Question:
    """One question of a task's data. What marking needs beyond `expected` is in `facts`."""

    id: str
    prompt: str
    picture: Path | Image | None = None
    expected: tuple[str, ...] = ()  # right answers, or references; none where the data has none
    groups: tuple[str, ...] = ()  # of the breakdown
    unit: str = ""  # what is drawn together for an interval; itself where empty
    before: tuple[tuple[str, str], ...] = ()  # earlier questions and answers of the conversation
    facts: Mapping[str, Any] = field(default_factory=dict)


class Examinee(ABC):
    """Who is asked: a model in an engine."""

    @abstractmethod
    def answers(self, questions: Sequence[Question], most: int) -> list[str]:
        """What it says to each, greedily, at most so many tokens."""

    @abstractmethod
    def log_likelihoods(self, texts: Sequence[tuple[Sequence[int], int]]) -> list[float]:
        """Of tokens from a place on, given those before: (ids, place), summed."""


class Task(ABC):
    """What a model can do, by questions out of a dataset's own files.

    `slimsearch eval` reads the questions, has them answered, and marks the answers: addends by
    name, summed over the whole and over each group; `figures` makes accuracies and the like of
    the sums (numbers, or arrays over resamples). A task that has choices is a dataclass.
    """

    headline: ClassVar[str] = "accuracy"  # the figure that a table shows
    order: ClassVar[tuple[str, ...]] = ()  # of groups in a table
    tokens: ClassVar[int] = 64  # that an answer has at most
    wanted: ClassVar[str]  # what --data must hold, for an error

    @abstractmethod
    def questions(self, data: str, words: Words | None) -> list[Question]:
        """Everything that `data` asks: a folder, a file, or 'hub' for the hub's data set.

        `words` turns text into the model's tokens, where there is a model.
        """

    def about(self, questions: Sequence[Question]) -> str:
        """Which of its data sets or splits these are of."""
        return ""

    def respond(self, examinee: Examinee, questions: Sequence[Question]) -> list[str]:
        return examinee.answers(questions, self.tokens)

    def names(self, question: Question) -> tuple[str, ...]:
        """What an answers file may call a question."""
        return (question.id,)

    def given(self, answer: Any) -> str:
        """An entry of an answers file as the text that a model would have said."""
        return str(answer)

    def read(self, question: Question, answer: str) -> str:
        """What counts of an answer, such as the letter of a choice."""
        return answer

    def mark(self, question: Question, answer: str) -> dict[str, float]:
        """What an answer adds, nothing where the data does not say what is right; by default
        whether it reads as one of those expected."""
        if not question.expected:
            return {}
        return {"right": float(self.read(question, answer) in question.expected), "count": 1.0}

    def marks(self, answered: Sequence[tuple[Question, str]]) -> list[Mark]:
        """All answers marked; a task may add marks that several answers make together."""
        return [
            Mark(question.unit or question.id, question.groups, self.mark(question, answer))
            for question, answer in answered
        ]

    def figures(self, sums: Sums) -> dict[str, Any]:
        """The figures of one group."""
        return {"accuracy": 100 * ratio(sums["right"], sums["count"])}

    def summary(self, by_group: Mapping[str, dict[str, Any]], sums: Sums) -> dict[str, Any]:
        """The figures of the whole, whose sums these are; by default those of the group ''."""
        return dict(by_group[WHOLE])

    def submission(self, answered: Sequence[tuple[Question, str]]) -> tuple[str, str] | None:
        """The form in which an official server takes answers: a file's ending and its content."""
        return None

    def measure(self, vlm: VLM, held_out: Calibrated) -> dict[str, float]:
        """The same on what a run has kept back from its calibration, for the run's own table;
        nothing for a task that needs data of its own."""
        return {}


class JudgedTask(Task):
    """A task whose answers another model grades; `judging` asks it."""

    headline = "score"

    @abstractmethod
    def case(self, question: Question, answer: str) -> str:
        """What the judge is asked about an answer."""

    @abstractmethod
    def verdict(self, reply: str) -> dict[str, float] | None:
        """The addends of a judge's reply; None where it cannot be read."""

    @abstractmethod
    def how_to_grade(self) -> str:
        """For who has no judge: how the answers file can be graded."""


OF_KIND: dict[str, type] = {
    "families": Family, "solvers": Solver, "architectures": Architecture, "objectives": Term,
    "strategies": Strategy, "executors": Executor, "exporters": Exporter, "runtimes": Runtime,
    "tasks": Task,
}  # fmt: skip
