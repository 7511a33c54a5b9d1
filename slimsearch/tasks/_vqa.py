"""The official files of VizWiz, VQAv2, TextVQA and GQA, as questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimsearch import official
from slimsearch.contracts import Question
from slimsearch.errors import SettingsError, TaskError, did_you_mean
from slimsearch.tasks import _answers

WANTED = "a folder with the official files of VizWiz, VQAv2, TextVQA or GQA"
MAY_REFUSE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
UNANSWERABLE = "unanswerable"


@dataclass(frozen=True)
class Dataset:
    """How one of them is read, and the form that its server takes."""

    files: tuple[str, ...]  # its names and patterns, tried in this order
    parse: Callable[[Path], Iterator[Question]]
    comparable: Callable[[str], str]  # an answer as it is compared
    hub: tuple[str, str, str] = ("", "", "")  # data set, configuration, split
    of_row: Callable[[dict[str, Any]], Question] | None = None
    column: str = "question_id"  # of a submission: what names a question
    said: str = "answer"  # and what holds its answer


def read(data: str, name: str) -> list[Question]:
    """All questions; the data set is known by its files where no name is given."""
    name = name or _name(data)
    if name not in DATASETS:
        raise SettingsError(f"There is no '{name}' in vqa.{did_you_mean(name, DATASETS)}")
    known = DATASETS[name]
    if known.of_row and (rows := official.rows(data, *known.hub)) is not None:
        return [known.of_row(row) for row in rows]
    return list(known.parse(official.find(official.place(data, WANTED), known.files, WANTED)))


def _name(data: str) -> str:
    place = Path() if data == official.HUB else official.place(data, WANTED)
    for name, known in DATASETS.items():
        if data != official.HUB and any(_holds(place, pattern) for pattern in known.files):
            return name
    raise SettingsError(
        f"Say with --dataset which data {data} is of: {', '.join(DATASETS)}. The files are known "
        f"by their names: {', '.join(known.files[0] for known in DATASETS.values())}."
    )


def _holds(place: Path, pattern: str) -> bool:
    return place.match(pattern) if place.is_file() else next(place.glob(pattern), None) is not None


def _vizwiz(file: Path) -> Iterator[Question]:
    places = (file.stem, f"images/{file.stem}", "images", f"../{file.stem}", ".")
    for number, record in enumerate(official.objects(official.read(file), file), 1):
        where = f"{file}, record {number}"
        name = official.field(record, "image", str, where)
        yield _of_vizwiz(record, name, official.picture(file.parent, name, places, where), where)


def _of_vizwiz(record: dict[str, Any], name: str, shown: Any, where: str) -> Question:
    kind = official.perhaps(record, "answer_type", str, where)
    kind = kind or official.perhaps(record, "category", str, where)
    answerable = record.get("answerable", kind != UNANSWERABLE if kind else None)
    facts = {} if answerable is None else {"answerable": bool(answerable)}
    return _question("vizwiz", name, record, shown, kind, where, MAY_REFUSE, facts)


def _vqav2(file: Path) -> Iterator[Question]:
    found = official.read(file)
    found = found if isinstance(found, dict) else {}
    split = official.perhaps(found, "data_subtype", str, str(file)) or "val2014"
    pictures = split.split("-")[0]
    answers = {}
    for beside in file.parent.glob("*mscoco_*_annotations.json"):
        if f"_{split}_" in beside.name:
            told = official.record(official.read(beside), str(beside)).get("annotations")
            answers |= {
                official.name(one, "question_id", f"{beside}, annotation {number}"): one
                for number, one in enumerate(official.objects(told, beside), 1)
            }
    for number, record in enumerate(official.objects(found.get("questions"), file), 1):
        name = official.name(record, "question_id", f"{file}, question {number}")
        record = record | answers.get(name, {})
        where = f"{file}, question {name}"
        image = f"COCO_{pictures}_{official.field(record, 'image_id', int, where):012d}.jpg"
        places = (pictures, f"images/{pictures}", "images", ".")
        shown = official.picture(file.parent, image, places, where)
        yield _of_vqav2(record, shown, where)


def _of_vqav2(record: dict[str, Any], shown: Any, where: str) -> Question:
    kind = official.perhaps(record, "answer_type", str, where)
    return _question("vqav2", record["question_id"], record, shown, kind, where)


def _textvqa(file: Path) -> Iterator[Question]:
    found = official.read(file)
    for record in official.objects(found.get("data") if isinstance(found, dict) else None, file):
        where = f"{file}, question {record.get('question_id')}"
        name = f"{official.field(record, 'image_id', str, where)}.jpg"
        places = ("train_images", "test_images", "images", ".")
        yield _of_textvqa(record, official.picture(file.parent, name, places, where), where)


def _of_textvqa(record: dict[str, Any], shown: Any, where: str) -> Question:
    name = official.name(record, "question_id", where)
    return _question("textvqa", name, record, shown, None, where)


def _gqa(file: Path) -> Iterator[Question]:
    found = official.read(file)
    if not isinstance(found, dict):
        raise TaskError(f"{file} holds no questions by number. --data wants {WANTED}.")
    for number, told in found.items():
        where = f"{file}, question {number}"
        record = official.record(told, where)
        name = f"{official.field(record, 'imageId', str, where)}.jpg"
        shown = official.picture(file.parent, name, ("images", "../images", "."), where)
        types = official.perhaps(record, "types", dict, where) or {}
        kind = official.perhaps(types, "structural", str, where)
        answer = official.perhaps(record, "answer", str, where)
        answers = [answer] if answer else []
        yield _question("gqa", number, record | {"answers": answers}, shown, kind, where)


def _question(
    dataset: str,
    name: str | int,
    record: dict[str, Any],
    shown: Any,
    kind: str | None,
    where: str,
    more: str = "",
    facts: dict[str, Any] | None = None,
) -> Question:
    asked = official.field(record, "question", str, where)
    return Question(
        str(name),
        asked + more,
        shown,
        tuple(_texts(official.perhaps(record, "answers", list, where) or (), where)),
        (kind,) if kind else (),
        facts={"dataset": dataset, "name": name, **(facts or {})},
    )


def _texts(answers: Iterable[Any], where: str) -> Iterator[str]:
    """Ten people's answers, each a text or an object with it."""
    for entry in answers:
        if isinstance(entry, str):
            yield entry
        else:
            yield official.field(
                official.record(entry, f"{where}, an answer"), "answer", str, where
            )


def _exact(answer: str) -> str:
    """As LLaVA hands answers to GQA's scorer."""
    return answer.strip().rstrip(".").lower()


DATASETS = {
    "vizwiz": Dataset(
        ("val.json", "test.json", "Annotations/val.json", "*[vV]iz[wW]iz*.json"),
        _vizwiz,
        _answers.evalai,
        ("lmms-lab/VizWiz-VQA", "default", "val"),
        lambda row: _of_vizwiz(row, row["question_id"], row["image"], row["question_id"]),
        column="image",
    ),
    "vqav2": Dataset(
        ("v2_OpenEnded_mscoco_val2014_questions.json", "*OpenEnded_mscoco_*_questions.json"),
        _vqav2,
        _answers.plain,
        ("lmms-lab/VQAv2", "default", "validation"),
        lambda row: _of_vqav2(row, row["image"], str(row["question_id"])),
    ),
    "textvqa": Dataset(
        ("TextVQA_0.5.1_val.json", "TextVQA_*.json"),
        _textvqa,
        _answers.evalai,
        ("lmms-lab/textvqa", "default", "validation"),
        lambda row: _of_textvqa(row, row["image"], str(row["question_id"])),
    ),
    "gqa": Dataset(  # the hub keeps its pictures apart from its questions
        ("testdev_balanced_questions.json", "*_balanced_questions.json", "*/*_balanced_*.json"),
        _gqa,
        _exact,
        column="questionId",
        said="prediction",
    ),
}
