"""An evaluation from questions to figures: answers asked or given, marked, compared, kept."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from slimsearch import artefact, files, settings
from slimsearch.api import pruning
from slimsearch.errors import SettingsError
from slimsearch.evaluation import examining, marking, sitting
from slimsearch.evaluation.examining import Subject
from slimsearch.evaluation.sitting import Exam, Sat
from slimsearch.record import history, results
from slimsearch.searching.watch import Watch


def evaluate(exam: Exam, watch: Watch | None = None) -> dict[str, Any]:
    """The result, as results.py describes it; kept in files with every answer beside it."""
    with ExitStack() as until:
        return _evaluate(exam, watch or Watch(), until)


def _evaluate(exam: Exam, watch: Watch, until: ExitStack) -> dict[str, Any]:
    """The same; what is written to is held for this process until the end."""
    if bool(exam.source) == bool(exam.given):
        raise SettingsError("Give a model, run or export to ask, or --answers FILE: one of both.")
    if exam.judge is not None:
        exam.judge.check()
    if exam.given:
        home = Path(exam.out or results.FOLDER)
        first = sitting.given(exam, Path(exam.given), watch)
    else:
        subject = examining.subject(exam.source)
        home = _home(exam, subject)
        first = sitting.asked(exam, subject, home, watch, until)
    result = _result(exam, first)
    for name in _others(exam.against):
        second = _against(exam, name, home, watch, until)
        _keep(second, _result(exam, second))
        result["against"].append(_compared(exam, first, second))
    _keep(first, result)
    if first.file is not None:
        artefact.renew_card(first.file.parent.parent)
    return result


def _others(against: str) -> list[str]:
    """Those to compare with: one, or several with commas between them."""
    if Path(against).expanduser().exists():
        return [against] if against else []
    return list(dict.fromkeys(name.strip() for name in against.split(",") if name.strip()))


def _against(exam: Exam, other: str, home: Path, watch: Watch, until: ExitStack) -> Sat:
    place = Path(other).expanduser()
    if place.is_file():
        return sitting.given(exam, place, watch)
    if exam.given:
        raise SettingsError(
            f"--against {other} is no file of answers, which --answers is compared with."
        )
    baselines = {results.DENSE: _dense, results.UNIFORM: _uniform}
    made = other in baselines and not place.is_dir()
    subject = examining.subject(baselines[other](exam.source, watch) if made else other)
    name = other if made else place.resolve().name if place.is_dir() else subject.name
    own = home if home.name == results.FOLDER else home.parent
    return sitting.asked(exam, replace(subject, name=name), own / name, watch, until)


def _result(exam: Exam, sat: Sat) -> dict[str, Any]:
    whole, breakdown = marking.figures(sat.task, sat.marked, exam.seed)
    return {
        **sat.header,
        "finished": True,
        "count": len(sat.answered),
        "units": len({mark.unit for mark in sat.marked.marks}),
        "figures": whole,
        "breakdown": breakdown,
        "against": [],
        "notes": list(sat.notes),
    }


def _compared(exam: Exam, first: Sat, second: Sat) -> dict[str, Any]:
    shared = first.marked.of.keys() & second.marked.of.keys()
    return {
        "model": second.header["model"],
        "count": len(shared),
        **marking.compared(first.task, first.marked, second.marked, exam.seed),
    }


def _keep(sat: Sat, result: dict[str, Any]) -> None:
    """The result, its log with marks, and what an official server takes."""
    if sat.file is None:
        return
    form = sat.task.submission(sat.answered)
    for ending, content in form.items():
        place = Path(f"{sat.file.with_suffix('.submission')}{ending}")
        with files.writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        files.write(place, content.encode())
        result["submission"] = place.relative_to(sat.file.parent).parts[0]
    lines = [
        examining.line(sat.task, question, answer)
        | {"marks": dict(sat.marked.of.get(question.id, {}))}
        for question, answer in sat.answered
    ]
    results.write(sat.file, result)
    results.write_lines(sat.file.with_suffix(".jsonl"), lines)


def _home(exam: Exam, subject: Subject) -> Path:
    """Where the results of a model stand: with the run or export that it is of."""
    if exam.out:
        return Path(exam.out) / subject.name
    if subject.name == results.CHAMPION:
        return subject.folder.parent / results.FOLDER / subject.name
    if subject.found.record and Path(exam.source).is_dir():
        return subject.folder / results.FOLDER
    return Path(results.FOLDER) / subject.name


def _uniform(source: str, watch: Watch) -> str:
    """A run's baseline, pruned where that was not done yet."""
    run = _run(source)
    if not (run / history.SETTINGS).is_file():
        raise SettingsError(
            f"--against uniform prunes a run's own baseline, and {source} is no run. Give the run, "
            f"or prune one with `slimsearch prune MODEL --ratio RATIO --out FOLDER` and name that."
        )
    return str(pruning.uniform(run, watch))


def _run(source: str) -> Path:
    """The run that is meant by its folder or by that of its champion."""
    place = Path(source).expanduser()
    return place.parent if place.name == "model" else place


def _dense(source: str, watch: Watch) -> str:
    """The model that a run began with, or that an export was made of."""
    file = _run(source) / history.SETTINGS
    if file.is_file():
        return settings.read(file).model
    base = artefact.record_of(Path(source)).get("base")
    if not isinstance(base, str):
        raise SettingsError(f"{source} does not say which dense model it is of; name it.")
    return base
