"""MM-Vet: open answers, graded from 0 to 1 by a judge; by capability and by their combinations."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from slimsearch import official
from slimsearch.contracts import JudgedTask, Question, Words
from slimsearch.errors import TaskError
from slimsearch.scoring import Sums, ratio

CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
# Our own words for the published manner: a table with grades in tenths, to be gone on with.
INSTRUCTION = """\
You grade answers to questions about pictures that you do not see. Hold each prediction against the
ground truth and give a grade between 0.0 (all wrong) and 1.0 (all right) in steps of 0.1. Where the
ground truth is parted by <AND>, every part must be there for 1.0, and each part earns its share;
where it is parted by <OR>, any one part is enough. Reply with the last grade of the table alone.

Question | Ground truth | Prediction | Grade
--- | --- | --- | ---
Which fruits are in the bowl? | apple <AND> pear | There are three bananas. | 0.0
Which fruits are in the bowl? | apple <AND> pear | I can see a pear. | 0.5
Which fruits are in the bowl? | apple <AND> pear | A pear lies beside an apple. | 1.0
What does the sign cost? | 4.50 <OR> 4,50 | It costs 4.50 dollars. | 1.0
Why does the man laugh? | His dog wears his hat and glasses. | The man laughs about a dog. | 0.4
"""


@dataclass(frozen=True)
class MmVet(JudgedTask):
    judge_prompt: str = ""  # a file that takes the place of our instruction, such as the official

    order: ClassVar = CAPABILITIES
    tokens: ClassVar = 512
    wanted: ClassVar = "a folder with mm-vet.json and images/"

    def questions(self, data: str, words: Words | None) -> list[Question]:
        rows = official.rows(data, "lmms-lab/MMVet", "default", "test")
        if rows is not None:
            return [
                _question(row["question_id"], row["question"], row["answer"],
                          row["capability"].split(","), row["image"]) for row in rows
            ]  # fmt: skip
        folder = official.place(data, self.wanted)
        file = official.find(folder, ("mm-vet.json", "**/mm-vet.json"), self.wanted)
        entries = official.read(file)
        if not isinstance(entries, dict):
            raise TaskError(f"{file} holds no questions by number. --data wants {self.wanted}.")
        found = []
        for name, told in entries.items():
            where = f"{file}, {name}"
            entry = official.record(told, where)
            image = official.field(entry, "imagename", str, where)
            shown = official.picture(file.parent, image, ("images", "."), where)
            asked = official.field(entry, "question", str, where)
            able = official.texts(entry, "capability", where)
            truth = official.perhaps(entry, "answer", str, where) or ""
            found.append(_question(name, asked, truth, able, shown))
        return found

    def names(self, question: Question) -> tuple[str, ...]:
        return question.id, question.id.removeprefix("v1_")

    def case(self, question: Question, answer: str) -> str:
        truth = question.expected[0].replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        said = " ".join(answer.split("\n"))
        begins = official.text(self.judge_prompt) if self.judge_prompt else INSTRUCTION
        return f"{begins.rstrip()}\n{question.prompt} | {truth} | {said} | "

    def verdict(self, reply: str) -> dict[str, float] | None:
        """The number that the reply begins with, or its only one."""
        found = re.findall(r"\d+(?:\.\d+)?", reply)
        begins = re.match(r"\s*\|?\s*(\d+(?:\.\d+)?)", reply)
        number = begins.group(1) if begins else found[0] if len(found) == 1 else ""
        if not number or float(number) > 1:
            return None
        return {"grade": float(number), "count": 1.0}

    def figures(self, sums: Sums) -> dict[str, Any]:
        return {"score": 100 * ratio(sums["grade"], sums["count"])}

    def submission(self, answered: Sequence[tuple[Question, str]]) -> dict[str, str]:
        said = {question.id: answer for question, answer in answered}
        return {".json": json.dumps(said, indent=4)}

    def how_to_grade(self) -> str:
        return (
            "MM-Vet's answers are graded by a judge: name one with --judge URL --judge-model NAME, "
            "or hand the submission file to MM-Vet's own evaluator"
        )


def _question(name: str, asked: str, truth: str, able: Sequence[str], shown: Any) -> Question:
    """In groups by each capability, and by all of them together."""
    known = [one for one in CAPABILITIES if one in able]
    together = "+".join(known) if len(known) > 1 else f"only {''.join(known)}"
    return Question(name, asked, shown, (truth,) if truth else (), (*known, together))
