"""Puts a task's questions to a model, in batches; what was answered survives a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from slimsearch import artefact, files
from slimsearch.api import generating
from slimsearch.api.generating import Speaker, Talk
from slimsearch.artefact import Artefact
from slimsearch.calibration import Turn
from slimsearch.contracts import Examinee, Question, Task, Words
from slimsearch.errors import LengthError, RunError, TaskError
from slimsearch.model import checkpoint, conversation, decoding
from slimsearch.model.decoding import Prompt
from slimsearch.record import changes, results
from slimsearch.searching.watch import Watch


@dataclass(frozen=True)
class Subject:
    """A model that is to be examined: where it stands and what it is."""

    name: str  # in results
    source: str  # as it was given
    folder: Path
    found: Artefact

    @property
    def words(self) -> Words:
        """Text into this model's tokens."""
        return conversation.load(self.found.checkpoint).tokens

    def facts(self, engine: Engine) -> dict[str, Any]:
        record = self.found.record
        return {
            "name": self.name,
            "source": self.source,
            "base": record.get("base", self.source),
            "sparsity": record.get("sparsity", 0.0),
            "runtime": generating.engine_of(self.folder, engine.runtime, engine.choices),
            "dtype": engine.choices.get("dtype", ""),
            "fingerprint": _fingerprint(self.found),
        }


@dataclass(frozen=True)
class Engine:
    """How a model is run."""

    runtime: str = generating.AUTO
    threads: int = 0
    batch: int = 8
    tokens: int = 0  # of an answer at most; 0: what the task says
    choices: Mapping[str, str] = field(default_factory=dict)  # as generating.open takes them


def subject(source: str) -> Subject:
    """A finished run's champion, an export, a model folder, a hub id or 'demo'."""
    place = Path(source).expanduser()
    run = place.parent if place.name == "model" else place  # RUN/model is the champion, too
    if (champion := artefact.champion(run)) is not None:
        return Subject(results.CHAMPION, source, champion, artefact.find(champion))
    folder = place if place.is_dir() else checkpoint.find(source).folder
    name = place.resolve().name if place.is_dir() else source.replace("/", "--")
    return Subject(name, source, folder, artefact.find(folder))


def check(subject: Subject, task: str, questions: Sequence[Question]) -> None:
    """Before a model is loaded: every picture is there, and the model can see it."""
    shown = [question for question in questions if question.picture is not None]
    if shown and not subject.found.sees:
        raise TaskError(
            f"{subject.source} reads text only, and {len(shown)} of {len(questions)} questions of "
            f"{task} show a picture, {shown[0].id} first. Give a model that sees, or leave them "
            f"out with --partial."
        )
    if missing := [question for question in shown if not _there(question)]:
        first = missing[0]
        raise TaskError(
            f"{len(missing)} of {len(shown)} pictures of {task} are missing, that of {first.id} "
            f"first: there is no {first.picture}. Put them there, or leave their questions out "
            f"with --partial."
        )


def askable(subject: Subject, questions: Sequence[Question]) -> list[Question]:
    """Those that `check` would let through."""
    return [
        question for question in questions
        if question.picture is None or (subject.found.sees and _there(question))
    ]  # fmt: skip


def ask(
    subject: Subject, task: Task, questions: Sequence[Question], engine: Engine,
    file: Path, identity: dict[str, Any], watch: Watch,
) -> list[str]:  # fmt: skip
    """Every answer, in order; those that an earlier call left in the log beside `file` are kept.

    Batches are the same ones whatever was kept, so a resumed evaluation ends as an unbroken one.
    """
    log = file.with_suffix(".jsonl")
    said = _kept(file, log, identity)
    batches = [questions[n : n + engine.batch] for n in range(0, len(questions), engine.batch)]
    open_ones = [some for some in batches if any(one.id not in said for one in some)]
    if open_ones:
        with watch.stage("load"):
            _, speaker = generating.open(
                subject.folder, engine.runtime, engine.threads, engine.choices
            )
        examinee = _Spoken(speaker, engine.tokens)
        with watch.stage("questions", len(open_ones)) as advance:
            for some in open_ones:
                fresh = [
                    (question, answer)
                    for question, answer in zip(some, task.respond(examinee, some), strict=True)
                    if question.id not in said
                ]
                results.append_lines(log, [line(task, *pair) for pair in fresh])
                said |= {question.id: answer for question, answer in fresh}
                advance()
        speaker.session.close()
        if examinee.too_long:
            watch.note(
                f"{len(examinee.too_long)} prompts are longer than this model reads, first "
                f"{examinee.too_long[0]}; they count as not answered."
            )
    return [said[question.id] for question in questions]


def line(task: Task, question: Question, answer: str) -> results.Line:
    """One question in the log."""
    shown = question.picture
    return {
        "id": question.id,
        "groups": list(question.groups),
        "prompt": question.prompt,
        "picture": str(shown) if isinstance(shown, Path) else None,
        "answer": answer,
        "read": task.read(question, answer),
        "expected": list(question.expected),
    }


def _there(question: Question) -> bool:
    return not isinstance(question.picture, Path) or question.picture.is_file()


class _Spoken(Examinee):
    """A speaker that is asked; a picture that two batches in turn show is looked at once."""

    def __init__(self, speaker: Speaker, most: int):
        self._speaker, self._most = speaker, most
        self._looked: dict[Path, Talk] = {}
        self.too_long: list[str] = []

    def answers(self, questions: Sequence[Question], most: int) -> list[str]:
        talks = [self._talk(question) for question in questions]
        try:
            prompts = [question.prompt for question in questions]
            said = self._speaker.ask(talks, prompts, self._most or most)
            answers = [answer.text for answer in said]
        except LengthError:
            if len(questions) > 1:
                return [self.answers([question], most)[0] for question in questions]
            self.too_long.append(questions[0].id)
            return [""]
        self._looked = {talk.picture: talk for talk in talks if isinstance(talk.picture, Path)}
        return answers

    def log_likelihoods(self, texts: Sequence[tuple[Sequence[int], int]]) -> list[float]:
        return [
            float(decoding.log_likelihoods(self._speaker.session, Prompt(ids), first)[0].sum())
            for ids, first in texts
        ]

    def _talk(self, question: Question) -> Talk:
        turns = [Turn(asked, answer) for asked, answer in question.before]
        shown = question.picture
        if isinstance(shown, Path) and (looked := self._looked.get(shown)):
            return replace(looked, turns=turns, origin=question.id)
        return Talk(shown, turns, origin=question.id)


def _kept(file: Path, log: Path, identity: dict[str, Any]) -> dict[str, str]:
    """Answers of an earlier call for the same identity; the result file says whose they are."""
    if (earlier := results.read(file)) is None:
        results.write(file, {**identity, "finished": False})
        log.unlink(missing_ok=True)
        return {}
    earlier = {key: earlier.get(key) for key in identity}
    if changed := changes.between(earlier, identity, but=("source", "name")):
        raise RunError(
            f"{file} holds another evaluation: {'; '.join(changed)}. Begin anew with --fresh, or "
            f"choose another place with --out."
        )
    results.cut_torn(log)
    return {entry["id"]: entry["answer"] for entry in results.read_lines(log)}


def _fingerprint(found: Artefact) -> str:
    """A hash over everything in the folder that a model is."""
    hashes = found.checkpoint.fingerprint()
    hashes.pop(checkpoint.RECORD, None)
    for form in found.record.get("exports", {}):
        if form != "hf" and found.holds(form):
            inside = sorted(file for file in (found.folder / form).rglob("*") if file.is_file())
            hashes |= {f"{form}/{file.name}": files.sha256(file) for file in inside}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
