"""POPE: is this object in the picture? Yes or no, by random, popular and adversarial questions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from slimsearch import official
from slimsearch.contracts import Question, Task, Words
from slimsearch.errors import TaskError
from slimsearch.official import BRIEFLY
from slimsearch.scoring import WHOLE, Sums, ratio

# LLaVA numbers the questions of all splits as one: the split's beginning + the question_id.
BEGINNINGS = {"adversarial": 0, "random": 10_000_000, "popular": 20_000_000}
NO = ("No", "not", "no")
PLACES = ("val2014", "images", "images/val2014", ".")


@dataclass(frozen=True)
class Pope(Task):
    instruction: str = BRIEFLY  # behind every question

    headline: ClassVar = "mean_f1"
    order: ClassVar = ("random", "popular", "adversarial")
    tokens: ClassVar = 16
    wanted: ClassVar = "a folder with POPE's coco_pope_*.json and the pictures of val2014/"

    def questions(self, data: str, words: Words | None) -> list[Question]:
        return [official.asked(one, self.instruction) for one in _questions(data, self.wanted)]

    def read(self, question: Question, answer: str) -> str:
        """no where the first sentence has the word No, no or not; else yes."""
        words = answer.split(".")[0].replace(",", "").split(" ")
        return "no" if any(word in NO for word in words) else "yes"

    def mark(self, question: Question, answer: str) -> dict[str, float]:
        if not question.expected:
            return {}
        said, present = self.read(question, answer) == "yes", question.expected == ("yes",)
        return {
            "right": float(said == present), "count": 1.0, "said": float(said),
            "present": float(present), "both": float(said and present),
        }  # fmt: skip

    def figures(self, sums: Sums) -> dict[str, Any]:
        both, said, present = (sums[name] for name in ("both", "said", "present"))
        return {
            "accuracy": 100 * ratio(sums["right"], sums["count"]),
            "precision": 100 * ratio(both, said),
            "recall": 100 * ratio(both, present),
            "f1": 100 * ratio(2 * both, said + present),
            "yes_ratio": 100 * ratio(said, sums["count"]),
        }

    def summary(self, by_group: Mapping[str, dict[str, Any]], sums: Sums) -> dict[str, Any]:
        splits = [figures["f1"] for name, figures in by_group.items() if name != WHOLE]
        return {"mean_f1": sum(splits) / len(splits), **by_group[WHOLE]}

    def submission(self, answered: Sequence[tuple[Question, str]]) -> dict[str, str]:
        """The lines that LLaVA's eval_pope reads."""
        lines = [
            {"question_id": int(one.id) if one.id.isdigit() else one.id, "prompt": one.prompt,
             "text": answer} for one, answer in answered
        ]  # fmt: skip
        return {".jsonl": "".join(json.dumps(line) + "\n" for line in lines)}


def _questions(data: str, wanted: str) -> Iterator[Question]:
    rows = official.rows(data, "lmms-lab/POPE", "default", "test")
    if rows is not None:
        for row in rows:
            yield _question(row["question_id"], row["question"], row["answer"], row["category"],
                            row["image"])  # fmt: skip
        return
    folder = official.place(data, wanted)
    official.find(folder, ("*_pope_*.json", "**/*_pope_*.json"), wanted)
    files = [folder] if folder.is_file() else sorted(folder.glob("**/*_pope_*.json"))
    for file in files:
        yield from _of_split(file)


def _of_split(file: Path) -> Iterator[Question]:
    split = re.sub(r".*_pope_", "", file.stem)
    for number, line in enumerate(official.objects(official.read(file), file), 1):
        where = f"{file}, question {number}"
        text = official.field(line, "text", str, where)
        label = official.field(line, "label", str, where)
        name = official.field(line, "image", str, where)
        if label not in ("yes", "no"):
            raise TaskError(f"{where}: 'label' must be yes or no, found {label!r}.")
        shown = official.picture(file.parent, name, PLACES, where)
        name = official.name({"question_id": number} | line, "question_id", where)
        if split in BEGINNINGS and not str(name).isdigit():
            raise TaskError(f"{where}: 'question_id' must be a whole number, found {name!r}.")
        yield _question(name, text, label, split, shown)


def _question(number: Any, text: str, label: str, split: str, shown: Any) -> Question:
    begins = BEGINNINGS.get(split)
    name = f"{split}/{number}" if begins is None else str(begins + int(number))
    return Question(name, text.strip(), shown, (label.lower(),), (split,))
