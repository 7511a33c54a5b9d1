"""Answers that somebody else wrote down, in any of the forms in which they are published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slimsearch import official
from slimsearch.contracts import Question, Task
from slimsearch.errors import TaskError

NAMES = ("question_id", "questionId", "id", "image")
SAID = ("text", "answer", "prediction", "pred", "response")


def read(file: Path, task: Task, questions: Sequence[Question]) -> dict[str, str]:
    """By question: what the file says, which may be less than all.

    A .jsonl or list of objects with a name and a text, as LLaVA and the challenges' servers have
    it; an object of name -> answer, as MM-Vet has it; or one with such an object in `outputs` or
    `results`, as ScienceQA's.
    """
    said: dict[str, Any] = {}
    for name, answer in _entries(official.read(file), file):
        number, key = 1, name
        while key in said:  # such as two questions about one of MME's pictures
            number += 1
            key = f"{name}#{number}"
        said[key] = answer
    found = {}
    for question in questions:
        for name in task.names(question):
            if name in said:
                found[question.id] = task.given(said[name])
    if not found:
        raise TaskError(
            f"{file} answers none of the {len(questions)} questions: they are named "
            f"{questions[0].id} and so on, its entries {next(iter(said), 'nothing')}. Give the "
            f"answers to these questions."
        )
    return found


def _entries(found: Any, file: Path) -> Iterator[tuple[str, Any]]:
    if isinstance(found, dict):
        for key in ("outputs", "results"):
            if isinstance(found.get(key), dict):
                found = found[key]
        for name, answer in found.items():
            if not isinstance(answer, str | int):
                raise TaskError(f"{file}: {name} must have a text or a number, found {answer!r}.")
            yield name, answer
        return
    for number, entry in enumerate(official.objects(found, file), 1):
        name = next((entry[key] for key in NAMES if key in entry), None)
        said = next((entry[key] for key in SAID if key in entry), None)
        if name is None or not isinstance(said, str | int):
            raise TaskError(
                f"{file}, entry {number} has no name ({', '.join(NAMES)}) or no answer "
                f"({', '.join(SAID)}); it holds {', '.join(entry)}."
            )
        yield str(name), said
