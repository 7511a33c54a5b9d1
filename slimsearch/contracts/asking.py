"""Sockets of an evaluation: questions, who answers them, and what the answers are worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from slimsearch.scoring import WHOLE, Mark, ratio

if TYPE_CHECKING:
    from PIL.Image import Image

    from slimsearch.model.batch import Calibrated
    from slimsearch.model.vlm import VLM
    from slimsearch.scoring import Sums

Words = Callable[[str], list[int]]  # text into a model's tokens


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

    def submission(self, answered: Sequence[tuple[Question, str]]) -> dict[str, str]:
        """The form in which an official server or scorer takes answers: content by a file's ending,
        such as '.json'; or by '/count.txt' and so on, which are put into a folder."""
        return {}

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
