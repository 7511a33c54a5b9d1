"""Answers to marks, marks to figures: what a task says of them, in the form that results keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from slimsearch import scoring
from slimsearch.contracts import JudgedTask, Question, Task
from slimsearch.scoring import WHOLE, Figures, Mark

Answered = Sequence[tuple[Question, str]]


@dataclass(frozen=True)
class Marked:
    """Marks of all answers, and what each question's answer adds by itself."""

    marks: Sequence[Mark]
    of: Mapping[str, Mapping[str, float]]  # by question; nothing where it could not be marked

    @property
    def right(self) -> dict[str, float]:
        """By question, where answers are right or wrong."""
        return {name: addends["right"] for name, addends in self.of.items() if "right" in addends}


def mark(task: Task, answered: Answered) -> Marked:
    """By the data's own answers."""
    of = {question.id: task.mark(question, answer) for question, answer in answered}
    known = [(question, answer) for question, answer in answered if of[question.id]]
    return Marked(task.marks(known), {name: addends for name, addends in of.items() if addends})


def graded(answered: Answered, verdicts: Sequence[dict[str, float] | None]) -> Marked:
    """By a judge's verdicts, one for each answer; None where there is none."""
    known = [
        (question, verdict)
        for (question, _), verdict in zip(answered, verdicts, strict=True) if verdict
    ]  # fmt: skip
    marks = [Mark(q.unit or q.id, q.groups, verdict) for q, verdict in known]
    return Marked(marks, {question.id: verdict for question, verdict in known})


def figures(task: Task, marked: Marked, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The whole's figures, and those of each group in the task's order."""
    if not marked.marks:
        return {}, {}
    found = scoring.measured(marked.marks, _by_group(task), seed)
    shown = {
        group: {name: asdict(figure) for name, figure in named.items() if isfinite(figure.value)}
        for group, named in found.items()
    }
    whole = shown.pop(WHOLE)
    places = {group: place for place, group in enumerate(task.order)}
    groups = sorted(shown, key=lambda group: (places.get(group, len(places)), group))
    return whole, {group: shown[group] for group in groups}


def compared(task: Task, first: Marked, second: Marked, seed: int) -> dict[str, Any]:
    """How the first differs from the second on the questions that both answered."""
    if isinstance(task, JudgedTask) and not (first.marks and second.marks):
        return {"figures": {}, "mcnemar": None}
    found = scoring.compared(first.marks, second.marks, _by_group(task), seed)
    whole = {
        name: asdict(difference)
        for name, difference in found.get(WHOLE, {}).items() if isfinite(difference.value)
    }  # fmt: skip
    return {"figures": whole, "mcnemar": scoring.mcnemar(first.right, second.right)}


def _by_group(task: Task) -> Figures:
    def made(sums: Mapping[str, scoring.Sums]) -> dict[str, dict[str, Any]]:
        found = {group: task.figures(some) for group, some in sums.items()}
        return found | {WHOLE: task.summary(found, sums[WHOLE])}

    return made
