"""The demo's pictures and questions in each dataset's official form, a few of each."""

import json
import re
from pathlib import Path
from typing import Any

from slimsearch.demo import world
from slimsearch.demo.world import Picture

PICTURES = 4


def scenes(kinds: tuple[str, ...], count: int = PICTURES) -> list[tuple[Picture, list]]:
    """Pictures with their questions of these kinds; those that have some."""
    found = []
    for shown in world.pictures("evaluation", 8 * count, 6, 0):
        if asked := [question for question in shown.questions if question.kind in kinds]:
            found.append((shown, asked))
    return found[:count]


def scienceqa(folder: Path) -> Path:
    """Multiple choice, every second picture's left out, some with a hint; grades 2 and 8."""
    problems, names = {}, []
    subjects = ("natural science", "social science", "language science")
    for n, (shown, asked) in enumerate(scenes(("choice",), 6)):
        name, text, choices = str(10 + n), *_parted(asked[0].text)
        if n % 2 == 0:
            _save(shown, folder / "images" / "test" / name / "image.png")
        problems[name] = {
            "question": text, "choices": choices, "answer": "ABCD".index(asked[0].answer),
            "hint": "Look at the picture." if n % 3 == 0 else "",
            "image": None if n % 2 else "image.png", "split": "test",
            "grade": f"grade{2 if n < 3 else 8}", "subject": subjects[n % 3],
        }  # fmt: skip
        names.append(name)
    problems["9"] = {**problems["10"], "split": "train", "image": None}
    _write(folder / "problems.json", problems)
    _write(folder / "pid_splits.json", {"train": ["9"], "test": names})
    return folder


def vizwiz(folder: Path) -> Path:
    """Ten people each; the last question is one that cannot be answered."""
    records = []
    for n, (shown, asked) in enumerate(scenes(("colour", "shape"))):
        name = f"VizWiz_val_{n:08d}.jpg"
        _save(shown, folder / "val" / name)
        lost = n == PICTURES - 1
        said = ["unanswerable" if lost else asked[0].answer] * 8 + ["no idea", "blurry"]
        records.append({
            "image": name, "question": asked[0].text,
            "answers": [{"answer": one, "answer_confidence": "yes"} for one in said],
            "answer_type": "unanswerable" if lost else "other", "answerable": int(not lost),
        })  # fmt: skip
    _write(folder / "val.json", records)
    return folder


def vqav2(folder: Path) -> Path:
    questions, annotations = [], []
    for n, (shown, asked) in enumerate(scenes(("count", "existence"))):
        _save(shown, folder / "val2014" / f"COCO_val2014_{n:012d}.jpg")
        for k, question in enumerate(asked):
            name = 1000 * n + k
            questions.append({"image_id": n, "question": question.text, "question_id": name})
            annotations.append({
                "question_id": name, "image_id": n, "question_type": "what",
                "answer_type": "yes/no" if question.kind == "existence" else "number",
                "answers": [
                    {"answer": question.answer, "answer_confidence": "yes", "answer_id": person}
                    for person in range(1, 11)
                ],
            })  # fmt: skip
    _write(folder / "v2_OpenEnded_mscoco_val2014_questions.json",
           {"data_subtype": "val2014", "questions": questions})  # fmt: skip
    _write(folder / "v2_mscoco_val2014_annotations.json", {"annotations": annotations})
    return folder


def textvqa(folder: Path) -> Path:
    records = []
    for n, (shown, asked) in enumerate(scenes(("colour",))):
        _save(shown, folder / "train_images" / f"{n:016x}.jpg")
        records.append({
            "question": asked[0].text, "question_id": 34602 + n, "image_id": f"{n:016x}",
            "answers": [asked[0].answer] * 10,
        })  # fmt: skip
    _write(folder / "TextVQA_0.5.1_val.json", {"data": records})
    return folder


def gqa(folder: Path) -> Path:
    questions = {}
    for n, (shown, asked) in enumerate(scenes(("existence", "colour"))):
        _save(shown, folder / "images" / f"n{n}.jpg")
        for k, question in enumerate(asked):
            questions[f"20{n}{k}"] = {
                "question": question.text, "imageId": f"n{n}", "answer": question.answer,
                "types": {"structural": "verify" if question.kind == "existence" else "query"},
            }  # fmt: skip
    _write(folder / "testdev_balanced_questions.json", questions)
    return folder


def pope(folder: Path) -> Path:
    """The same questions in two splits, as POPE repeats what is in a picture."""
    for split in ("random", "adversarial"):
        lines = []
        for n, (shown, asked) in enumerate(scenes(("existence",))):
            name = f"COCO_val2014_{n:012d}.jpg"
            _save(shown, folder / "val2014" / name)
            for question in asked:
                lines.append({"question_id": len(lines) + 1, "image": name,
                              "text": question.text, "label": question.answer})  # fmt: skip
        _write_lines(folder / f"coco_pope_{split}.json", lines)
    return folder


def mme(folder: Path) -> Path:
    """One category in each of the two shapes of folders, two questions about each picture."""
    for category, texts in (("existence", "questions_answers_YN"), ("code_reasoning", "")):
        for n, shown in enumerate(world.pictures("evaluation", PICTURES, 6, 0)):
            thing = shown.scene.things[0]
            lines = [f"Is there a {colour} {thing.shape}? Please answer yes or no.\t{answer}"
                     for colour, answer in ((thing.colour, "Yes"), ("pink", "No"))]  # fmt: skip
            _save(shown, folder / category / ("images" if texts else "") / f"{n:04d}.png")
            place = folder / category / texts / f"{n:04d}.txt"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def mmvet(folder: Path) -> Path:
    entries = {}
    for n, (shown, asked) in enumerate(scenes(("colour", "count"))):
        _save(shown, folder / "images" / f"v1_{n}.png")
        able = ["rec", "spat"] if asked[0].kind == "colour" else ["math", "ocr"]
        entries[f"v1_{n}"] = {
            "imagename": f"v1_{n}.png", "question": asked[0].text, "answer": asked[0].answer,
            "capability": able, "imagesource": "demo",
        }  # fmt: skip
    _write(folder / "mm-vet.json", entries)
    return folder


def llava_bench(folder: Path) -> Path:
    questions, contexts, answers = [], [], []
    for n, (shown, asked) in enumerate(scenes(("colour", "shape"))):
        _save(shown, folder / "images" / f"{n:03d}.jpg")
        kind = ("conv", "detail", "complex")[n % 3]
        questions.append({"question_id": n, "image": f"{n:03d}.jpg", "text": asked[0].text,
                          "category": kind})  # fmt: skip
        contexts.append({"id": n, "image": f"{n:03d}.jpg", "caption": ["A scene.", "Of shapes."]})
        answers.append({"question_id": n, "text": f"It is {asked[0].answer}."})
    _write_lines(folder / "questions.jsonl", questions)
    _write_lines(folder / "context.jsonl", contexts)
    _write_lines(folder / "answers_gpt4.jsonl", answers)
    return folder


def pairs(folder: Path) -> Path:
    """Conversations of all their questions, with a list of kinds."""
    records = []
    for n, shown in enumerate(world.pictures("evaluation", PICTURES, 3, 0)):
        _save(shown, folder / "images" / f"{n}.png")
        said = [
            {
                "from": speaker,
                "value": ("<image>\n" if k == 0 and speaker == "human" else "") + text,
            }
            for k, question in enumerate(shown.questions)
            for speaker, text in (("human", question.text), ("gpt", question.answer))
        ]
        kinds = [question.kind for question in shown.questions]
        records.append({"id": f"p{n}", "image": f"images/{n}.png", "conversations": said,
                        "kinds": kinds})  # fmt: skip
    _write(folder / "pairs.json", records)
    return folder / "pairs.json"


def perplexity(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ptb.test.txt").write_text(world.text("evaluation", 400, 0), "utf-8")
    return folder


def _parted(text: str) -> tuple[str, list[str]]:
    """'What ...? A. red B. blue Answer with the letter.' as question and choices."""
    asked, *choices = re.split(r" [A-D]\. ", text.removesuffix(" Answer with the letter."))
    return asked, choices


def _save(shown: Picture, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    shown.image.save(file)


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), "utf-8")


def _write_lines(file: Path, lines: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
