"""MME: two yes-or-no questions about each picture; accuracy and accuracy+ (both right), summed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from slimsearch import official
from slimsearch.contracts import Question, Task, Words
from slimsearch.errors import TaskError
from slimsearch.official import BRIEFLY
from slimsearch.scoring import Mark, Sums, ratio

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark",
    "artwork", "OCR",
)  # fmt: skip
COGNITION = (
    "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
)  # fmt: skip
ASKED = "Please answer yes or no."
PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Mme(Task):
    instruction: str = BRIEFLY  # in place of MME's own

    headline: ClassVar = "perception"
    order: ClassVar = (*PERCEPTION, *COGNITION)
    tokens: ClassVar = 16
    wanted: ClassVar = "MME_Benchmark_release_version, a folder for each of its 14 categories"

    def questions(self, data: str, words: Words | None) -> list[Question]:
        rows = official.rows(data, "lmms-lab/MME", "default", "test")
        if rows is not None:
            return self._asked(
                (row["question_id"], row["question"], row["answer"], row["category"], row["image"])
                for row in rows
            )
        folder = official.place(data, self.wanted)
        found = []
        for category in self.order:
            for place in (folder, *folder.glob("*")):
                if (place / category).is_dir():
                    found += _of_category(place / category)
                    break
        if not found:
            raise TaskError(f"{folder} holds none of MME's categories. --data wants {self.wanted}.")
        return self._asked(found)

    def _asked(self, found: Iterable[tuple[str, str, str, str, Any]]) -> list[Question]:
        return [
            official.asked(
                Question(name, text.replace(ASKED, "").strip(), shown, (answer.strip().lower(),),
                         (category,), name, facts={"asked": text}),
                self.instruction,
            )
            for name, text, answer, category, shown in found
        ]  # fmt: skip

    def read(self, question: Question, answer: str) -> str:
        """yes or no where one of them begins the answer, or stands in its first four letters."""
        said = answer.strip().lower()
        for word in ("yes", "no"):
            if said.startswith(word):
                return word
        return "yes" if "yes" in said[:4] else "no" if "no" in said[:4] else "other"

    def marks(self, answered: Sequence[tuple[Question, str]]) -> list[Mark]:
        """Each answer, and each picture once: whether both its answers are right."""
        marks = super().marks(answered)
        right: dict[str, list[float]] = {}
        for mark in marks:
            right.setdefault(mark.unit, []).append(mark.addends["right"])
        groups = {mark.unit: mark.groups for mark in marks}
        return marks + [
            Mark(unit, groups[unit], {"both": float(all(some)), "pictures": 1.0})
            for unit, some in right.items()
        ]

    def figures(self, sums: Sums) -> dict[str, Any]:
        accuracy = 100 * ratio(sums["right"], sums["count"])
        plus = 100 * ratio(sums["both"], sums["pictures"])
        return {"score": accuracy + plus, "accuracy": accuracy, "accuracy+": plus}

    def summary(self, by_group: Mapping[str, dict[str, Any]], sums: Sums) -> dict[str, Any]:
        """The sums of the categories' scores; of what there is of either kind."""
        found: dict[str, Any] = {}
        for name, kind in (("perception", PERCEPTION), ("cognition", COGNITION)):
            if scores := [by_group[one]["score"] for one in kind if one in by_group]:
                found[name] = sum(scores)
        return found

    def submission(self, answered: Sequence[tuple[Question, str]]) -> dict[str, str]:
        """A file for each category, as MME's eval_tool reads it: picture, question, right answer
        and what was said, parted by tabs. Both questions about a picture stand together."""
        found: dict[str, str] = {}
        for question, answer in answered:
            file = f"/{question.groups[0]}.txt"
            name, right = question.unit.rpartition("/")[2], question.expected[0].capitalize()
            parts = (name, question.facts["asked"], right, answer)
            line = "\t".join(" ".join(part.split()) for part in parts)
            found[file] = f"{found.get(file, '')}{line}\n"
        return found


def _of_category(folder: Path) -> list[tuple[str, str, str, str, Any]]:
    """Its texts, each a picture's two lines of question and answer, parted by a tab."""
    texts = folder / "questions_answers_YN"
    found = []
    for file in sorted((texts if texts.is_dir() else folder).glob("*.txt")):
        places = (folder / "images", folder)
        names = [place / (file.stem + kind) for place in places for kind in PICTURES]
        shown = next((name for name in names if name.is_file()), names[0])
        lines = [line for line in official.text(file).splitlines() if line.strip()]
        for number, line in enumerate(lines, 1):
            asked, _, answer = line.rpartition("\t")
            if answer.strip().lower() not in ("yes", "no"):
                raise TaskError(f"{file}, line {number} is no question, tab, and Yes or No.")
            found.append((f"{folder.name}/{shown.name}", asked, answer, folder.name, shown))
    return found
