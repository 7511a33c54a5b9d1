"""Questions of a task, answered by a model or by a file, and marked."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from slimsearch import files, plugins
from slimsearch.contracts import JudgedTask, Question, Task
from slimsearch.errors import SettingsError, TaskError
from slimsearch.evaluation import answers, examining, marking
from slimsearch.evaluation.examining import Engine, Subject
from slimsearch.evaluation.judging import Grades, Judge
from slimsearch.evaluation.marking import Answered, Marked
from slimsearch.record import results
from slimsearch.searching.watch import Watch


@dataclass(frozen=True)
class Exam:
    """What is asked, and of whom."""

    task: str
    data: str = ""
    source: str = ""  # a model, run or export; none where `given` is one
    given: str = ""  # a file of answers in place of a model
    against: str = ""  # other models, 'dense', 'uniform', files of answers, to compare with
    limit: int = 0  # questions that are drawn; 0: all
    seed: int = 0
    out: str = ""
    fresh: bool = False
    partial: bool = False  # what is missing, pictures or answers of a file, is left out
    choices: Mapping[str, Any] = field(default_factory=dict)  # of the task
    engine: Engine = field(default_factory=Engine)
    judge: Judge | None = None


@dataclass(frozen=True)
class Sat:
    """One who has sat the exam."""

    task: Task
    header: dict[str, Any]  # whose answers these are, and to what
    answered: Answered
    marked: Marked
    notes: Sequence[str]
    file: Path | None  # of its result, where that is kept


def asked(exam: Exam, subject: Subject, folder: Path, watch: Watch, until: ExitStack) -> Sat:
    """The answers of a model; nobody else writes into the folder `until` that is closed."""
    task = _task(exam, subject.found.room)
    found, notes = task.questions(exam.data, subject.words), []
    if exam.partial and (left := len(found) - len(askable := examining.askable(subject, found))):
        found = askable
        notes = [f"{left} questions were left out: their pictures cannot be shown."]
    questions = _chosen(exam, found)
    examining.check(subject, exam.task, questions)
    file = folder / f"{_stem(exam, task, questions)}.json"
    until.enter_context(results.held(folder))
    if exam.fresh:
        for ending in (".json", ".jsonl", ".grades.jsonl"):
            file.with_suffix(ending).unlink(missing_ok=True)
    model = subject.facts(exam.engine)
    header = _header(exam, task, questions, model)
    said = examining.ask(subject, task, questions, exam.engine, file, header, watch)
    return _sat(exam, task, header, list(zip(questions, said, strict=True)), notes, file, watch)


def given(exam: Exam, place: Path, watch: Watch) -> Sat:
    """The answers of a file."""
    task = _task(exam, 0)
    questions = _chosen(exam, task.questions(exam.data, None))
    said = answers.read(place, task, questions)
    missing = [question.id for question in questions if question.id not in said]
    if missing and not exam.partial:
        raise TaskError(
            f"{place} lacks answers to {len(missing)} of {len(questions)} questions, {missing[0]} "
            f"first. With --partial only those are scored that are answered."
        )
    model = {"name": place.stem, "source": str(place), "fingerprint": files.sha256(place)}
    answered = [(question, said[question.id]) for question in questions if question.id in said]
    file = None
    if exam.out or exam.judge:
        file = (
            Path(exam.out or results.FOLDER) / place.stem / f"{_stem(exam, task, questions)}.json"
        )
    notes = (
        [f"{len(missing)} questions were not answered, and count for nothing."] if missing else []
    )
    header = _header(exam, task, questions, model)
    return _sat(exam, task, header, answered, notes, file, watch)


def _sat(
    exam: Exam, task: Task, header: dict[str, Any], answered: Answered, notes: list[str],
    file: Path | None, watch: Watch,
) -> Sat:  # fmt: skip
    """The answers marked: by the data, or by a judge where the task needs one."""
    if not isinstance(task, JudgedTask):
        marked = marking.mark(task, answered)
        if not marked.marks:
            notes.append("The data has no right answers, so there are no figures.")
        return Sat(task, header, answered, marked, notes, file)
    if exam.judge is None:
        return Sat(task, header, answered, Marked((), {}), [*notes, task.how_to_grade()], file)
    known = [(question, answer) for question, answer in answered if question.expected]
    cases = [task.case(question, answer) for question, answer in known]
    assert file is not None
    grades = Grades(file.with_suffix(".grades.jsonl"), exam.judge)
    missing = grades.missing(cases, task.verdict)
    if missing:
        watch.note(exam.judge.estimate(missing, len(cases) - len(missing)))
    with watch.stage("judge", len(cases)) as advance:
        verdicts = []
        for case in cases:
            verdicts.append(grades.of(case, task.verdict))
            advance()
    if unread := verdicts.count(None):
        notes.append(
            f"{unread} of {len(cases)} of the judge's replies hold no grade and are left out; the "
            f"same command asks for them again."
        )
    header = {**header, "judge": {"url": exam.judge.url, "model": exam.judge.model}}
    return Sat(task, header, answered, marking.graded(known, verdicts), notes, file)


def _task(exam: Exam, room: int) -> Task:
    found = plugins.make("tasks", exam.task, {"room": room, **exam.choices})
    foreign = [name for name in exam.choices if name not in _fields(found)]
    if foreign:
        flag = foreign[0].replace("_", "-")
        raise SettingsError(f"--{flag} means nothing to {exam.task}; leave it out.")
    return found


def _fields(task: Task) -> dict[str, Any]:
    return asdict(task) if is_dataclass(task) else {}


def _chosen(exam: Exam, questions: Sequence[Question]) -> list[Question]:
    """All, or units drawn by seed until there are `limit` questions, in the data's order."""
    if not questions:
        raise TaskError(f"{exam.data} holds no questions of {exam.task}.")
    questions = list(_apart(questions))
    if not exam.limit or exam.limit >= len(questions):
        return questions
    sizes: dict[str, int] = {}
    for question in questions:
        unit = question.unit or question.id
        sizes[unit] = sizes.get(unit, 0) + 1
    units = list(sizes)
    random.Random(exam.seed).shuffle(units)
    drawn, count = set(), 0
    while count < exam.limit:
        drawn.add(units.pop())
        count = sum(sizes[unit] for unit in drawn)
    return [question for question in questions if (question.unit or question.id) in drawn]


def _apart(questions: Sequence[Question]) -> Iterator[Question]:
    """Further questions of one name, such as two about a picture, are called name#2 and so on."""
    seen: dict[str, int] = {}
    for question in questions:
        seen[question.id] = count = seen.get(question.id, 0) + 1
        yield replace(question, id=f"{question.id}#{count}") if count > 1 else question


def _header(
    exam: Exam, task: Task, questions: Sequence[Question], model: dict[str, Any]
) -> dict[str, Any]:
    """What the answers follow from; an evaluation goes on only where it is the same."""
    asked = [(question.id, question.prompt, question.expected) for question in questions]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    chosen = {
        "limit": exam.limit, "seed": exam.seed, "partial": exam.partial,
        "batch": exam.engine.batch,
    }  # fmt: skip
    return {
        "task": exam.task,
        "headline": task.headline,
        "model": model,
        "data": {"name": task.about(questions), "source": exam.data, "fingerprint": digest},
        "choices": {**chosen, "tokens": exam.engine.tokens or task.tokens, **_fields(task)},
    }


def _stem(exam: Exam, task: Task, questions: Sequence[Question]) -> str:
    """What an evaluation's files are named after: the task, its data, how many are drawn."""
    drawn = f"limit{exam.limit}" if exam.limit else ""
    parts = [exam.task, task.about(questions), drawn]
    return "-".join(part for part in parts if part).replace("/", "_")
